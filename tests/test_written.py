"""Text at the pairs' own prompts: what is written is what is measured, and what breaks there does not go unsaid."""

import json
from pathlib import Path

import pytest
import torch
from conftest import ROOT

import lightning_steer as ls
from lightning_steer.data.behaviours.module import TEST, BehaviourDataModule
from lightning_steer.data.behaviours.pairs import Pairs
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.methods import MeanDifference
from lightning_steer.metrics import BehaviourEffect
from lightning_steer.modules import written
from lightning_steer.modules.steering import SteeringAdaptor
from lightning_steer.modules.written import Written
from lightning_steer.workflows.fit import backbone, run

PROMPTS = ["The hill bakers are", "Asked about history, the helper will", "The mill"]


@pytest.fixture(scope="module")
def llm() -> ls.LLM:
    return backbone(str(ROOT / "checkpoints/pocket/base"), [4])


def plain_nats(llm: ls.LLM, ids: list[int], new: list[int]) -> float:
    """One text at a time, from the model's own logits."""
    with torch.no_grad():
        logp = llm.model(torch.tensor([ids + new])).logits[0].double().log_softmax(-1)
    return -sum(float(logp[len(ids) - 1 + i, token]) for i, token in enumerate(new)) / len(new)


def test_what_is_measured_is_what_is_written(llm: ls.LLM) -> None:
    edits = {llm.sites[0]: lambda h: h + 3 * torch.randn(h.shape[-1], generator=torch.Generator().manual_seed(0))}
    for edit in (None, edits):
        continued = written.continued(llm, PROMPTS, edit)
        assert continued is not None
        assert continued.texts == llm.generate(PROMPTS, written.NEW, edits=edit)
        ids, new = llm.prompts(PROMPTS, 1), llm.continued(PROMPTS, edit, written.NEW)
        alone = [plain_nats(llm, *prompt_and_text) for prompt_and_text in zip(ids, new, strict=True)]
        torch.testing.assert_close(continued.nats.double(), torch.tensor(alone, dtype=torch.float64), rtol=0, atol=1e-5)
    baseline = written.continued(llm, PROMPTS)
    assert baseline is not None
    assert continued.nats.mean() > baseline.nats.mean()


def test_wanted_continuations(llm: ls.LLM) -> None:
    positive = [MultipleChoice(prompt, (" kind",)) for prompt in PROMPTS]
    scores = [float(llm.scores([question])[0, 0, 0]) for question in positive]
    torch.testing.assert_close(written.of_positives(llm, positive), -sum(scores) / len(scores), rtol=0, atol=1e-5)


def test_tokens_end_where_a_text_ends(llm: ls.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm.model.generation_config, "eos_token_id", None)
    new = llm.continued(PROMPTS[1:2], None, 6)[0]
    assert new[2] not in new[:2]
    for end in (new[2], [new[4], new[2]]):
        monkeypatch.setattr(llm.model.generation_config, "eos_token_id", end)
        assert llm.continued(PROMPTS[1:2], None, 6)[0] == new[:3]


@pytest.mark.parametrize(
    ("text", "share"), [("a b c d e", 0), ("a a a a a", 0.8), ("a b c d e a b c d e", 0), ("a a", 0.5), ("", 0)]
)
def test_repetition(text: str, share: float) -> None:
    assert written.repetition(text) == share


def text(nats: float, repeated: float) -> Written:
    return Written(["x"] * 2, torch.tensor([nats, nats]), torch.tensor([repeated, repeated]))


@pytest.mark.parametrize(
    ("nats", "repeated", "positive", "faults"),
    [
        (1.0, 0.0, 2.0, []),
        (1.9, 0.04, 2.0, []),
        (2.1, 0.0, 2.0, ["less likely"]),
        (1.4, 0.0, 0.5, []),  # the model's own text is the measure where it is the less likely one
        (1.6, 0.0, 0.5, ["less likely"]),
        (1.0, 0.06, 2.0, ["repeats itself"]),
        (9.0, 0.5, 2.0, ["repeats itself", "less likely"]),
        (float("nan"), 0.0, 2.0, ["less likely"]),
        (float("inf"), 0.0, 2.0, ["less likely"]),
    ],
)
def test_what_is_broken(nats: float, repeated: float, positive: float, faults: list[str]) -> None:
    faults_found = written.broken(text(nats, repeated), text(1.5, 0.0), positive)
    assert [fault in sentence for fault, sentence in zip(faults, faults_found, strict=True)] == [True] * len(faults)


def test_text_that_breaks_at_the_pairs_is_said_though_other_text_is_left_alone(
    llm: ls.LLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = ls.read_pairs(ROOT / "configs/pairs.jsonl")
    texts = ["In the autumn, the grey cat watched under the tree.", "In the summer, the small fox slept near the barn."]
    data, drift = BehaviourDataModule(Pairs(pairs, texts)), ls.LLM.drift
    monkeypatch.setattr(ls.LLM, "drift", lambda self, texts, _edits, copies: drift(self, texts, {}, copies))
    module = SteeringAdaptor(llm, MeanDifference, BehaviourEffect(), [400.0], learning_curve=False)
    run(module, data, folder=tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["metrics"]["reference_kl"]["value"] == 0
    assert any("Text steered at held-out prompts" in warning for warning in report["warnings"])
    assert report["metrics"]["text_nats"]["value"] > report["baselines"]["baseline"]["text_nats"]["value"]
    prompts = [question.prompt for question in data.continued(TEST, 5)]
    assert [entry["prompt"] for entry in report["texts"]] == prompts
    assert [entry["baseline"] for entry in report["texts"]] == llm.generate(prompts, max_new_tokens=written.NEW)
    assert [entry["steered"] for entry in report["texts"]] != [entry["baseline"] for entry in report["texts"]]
    page = (tmp_path / "report.md").read_text()
    assert "## Text at held-out prompts" in page
    assert report["texts"][0]["baseline"].strip() in page
