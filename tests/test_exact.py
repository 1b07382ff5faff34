"""A model that answers in its own words: graded at its own label, wrong without one, steered while it writes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import quiet_trainer
from decoders import decoder, letters
from torch import Tensor

from lightning_steer.data import observations
from lightning_steer.data.base import LabelledBatch
from lightning_steer.data.mera.generated_answers import Answered, Answering, answer
from lightning_steer.data.mera.generated_backbone import GeneratedAnswerBackbone
from lightning_steer.data.mera.module import MERADataModule
from lightning_steer.data.mera.tasks import LabelledFile
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import LastPromptToken
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.methods import MERA, MeanDifference
from lightning_steer.metrics import Answers
from lightning_steer.modules import ErrorProbe, SteeringAdaptor

LABELS = {"vowel": list("aeiou"), "early": list("bcdf"), "late": list("vwxyz")}
OPTIONS = tuple(" " + letter for variants in LABELS.values() for letter in variants)
LABEL_OF = torch.tensor([k for k, variants in enumerate(LABELS.values()) for _ in variants])
SHORT = Answering(max_new_tokens=8, rows_at_once=7)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("letters")
    decoder("llama").save_pretrained(path)
    letters().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, g = tmp_path_factory.mktemp("data") / "own.jsonl", torch.Generator().manual_seed(0)
    rows = []
    for i in range(150):
        text = "".join(chr(97 + int(c)) for c in torch.randint(26, (3 + i % 9,), generator=g))
        rows.append(json.dumps({"text": text, "kind": list(LABELS)[i % 3]}))
    path.write_text("\n".join(rows))
    return path


def llm_of(model: Path) -> LLM:
    llm = LLM(str(model), layers=[1, 2], positions=LastPromptToken())
    llm.load()
    llm.requires_grad_(False)
    return llm


def questions(count: int = 20) -> list[MultipleChoice]:
    return [MultipleChoice(f"{'pqrstuv'[i % 7] * (i % 5)} is {chr(97 + i)}?", OPTIONS) for i in range(count)]


def test_every_copy_writes_and_is_graded_as_if_it_were_alone(model: Path) -> None:
    """Some copies answer otherwise than others, so copies that were mixed up would be seen."""
    llm, batch = llm_of(model), questions()
    push = 3 * torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    site = llm.sites[0]

    def edit(h: Tensor) -> Tensor:
        return h + push.reshape(3, *[1] * (h.dim() - 2), 32)

    scores = GeneratedAnswerBackbone(llm, SHORT).scores(batch, {site: edit}, 3)
    assert scores.shape == (3, 20, len(OPTIONS) + 1)
    written = []
    for i in range(3):
        alone: Any = {site: lambda h, i=i: h + push[i]}
        answered = answer(llm, batch, alone, 8)
        expected = llm.scores(answered.questions, alone)[0]
        parsed = answered.parsed
        torch.testing.assert_close(scores[i, parsed, :-1], expected[parsed], rtol=1e-4, atol=1e-4)
        assert torch.equal(scores[i, :, -1] == 0, ~parsed)
        written.append(answered.text)
    assert written[0] != written[1] != written[2]
    plain = GeneratedAnswerBackbone(llm, SHORT)
    torch.testing.assert_close(plain.scores(batch)[0], plain.observe(batch)[0], rtol=1e-4, atol=1e-4)


def test_who_writes_no_label_is_wrong_and_others_are_graded_as_before() -> None:
    scores = torch.randn(6, len(OPTIONS), generator=torch.Generator().manual_seed(0))
    option = torch.tensor([0, -1, 3, -1, -1, 12])
    y = torch.tensor([0, 0, 1, 1, 2, 2])
    answered = Answered(questions(6), option, [""] * 6)
    before = LabelledBatch([], y, LABEL_OF, torch.arange(6))
    after = LabelledBatch([], y, torch.cat([LABEL_OF, torch.tensor([3])]), torch.arange(6))
    labelled, wrote_a_label = answered.scored(scores), option >= 0
    error, expected = Answers().error(labelled, after), Answers().error(scores, before)
    assert torch.equal(error, answered.error(expected))
    assert (error[~wrote_a_label] == 1).all()
    rows = Answers().rows(labelled, labelled.unsqueeze(0), after)
    assert torch.equal(rows["answer"][0] == 3, ~wrote_a_label)
    assert (rows["accuracy"][0, ~wrote_a_label] == 0).all()
    assert torch.equal(
        rows["answer"][0, wrote_a_label],
        Answers().rows(scores, scores.unsqueeze(0), before)["answer"][0, wrote_a_label],
    )


def data_of(file: Path, cache: Path | None = None, answering: Answering | None = SHORT) -> MERADataModule:
    source = LabelledFile(str(file), "{text} is", LABELS, "kind")
    place = None if cache is None else str(cache)
    return MERADataModule(source, 80, 30, 30, batch_size=40, cache=place, answering=answering)


def test_probes_at_the_model_s_own_answers_with_and_without_a_cache(
    model: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generated: list[str] = []
    generate = LLM.generate

    def noted(llm: LLM, prompts: list[str], *given: Any, **more: Any) -> list[str]:
        generated.extend(prompts)
        return generate(llm, prompts, *given, **more)

    monkeypatch.setattr(LLM, "generate", noted)
    lists = []
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        generated.clear()
        llm = LLM(str(model), layers=[1, 2], positions=LastPromptToken())
        probe, data = ErrorProbe(llm, Answers()), data_of(file, cache)
        quiet_trainer(default_root_dir=tmp_path).fit(probe, data)
        lists.append((probe, len(generated)))
    assert [count for _, count in lists] == [110, 110, 30]  # the calibration rows are answered in every fit
    for probe, _ in lists[1:]:
        torch.testing.assert_close(probe.weight, lists[0][0].weight, rtol=1e-3, atol=1e-5)
    quiet_trainer(default_root_dir=tmp_path).test(probe, data, verbose=False)
    metrics = json.loads((tmp_path / "report.json").read_text())["metrics"]
    expected = answer(llm_of(model), [MultipleChoice(e.prompt, data.choices) for e in data.test], None, 8)
    assert metrics["no_label"]["value"] == pytest.approx(float((~expected.parsed).double().mean()))
    assert 0 < metrics["no_label"]["low"] < metrics["no_label"]["value"] < metrics["no_label"]["high"] < 1
    last = ErrorProbe(LLM(str(model), layers=[1, 2], positions=LastPromptToken()), Answers())
    quiet_trainer(default_root_dir=tmp_path).fit(last, data_of(file, None, None))
    assert not torch.allclose(last.weight, lists[0][0].weight, rtol=1e-2)


def test_answers_of_another_length_are_computed_again(
    model: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    llm, data = llm_of(model), data_of(file)
    data.setup()
    batch = [MultipleChoice(e.prompt, data.choices) for e in data.train]
    for answering, message in (
        (SHORT, "Answering 80"),
        (SHORT, ""),
        (Answering(2), "Answering 80"),
        (None, "differ in"),
    ):
        observations.observe_once(llm, batch, tmp_path, answering)
        out = capsys.readouterr().out
        assert (message in out) if message else not out


@pytest.mark.parametrize("method", [MERA, MeanDifference])
def test_steering_a_model_that_answers_in_its_own_words(method: Any, model: Path, file: Path, tmp_path: Path) -> None:
    choices = {"random_draws": 2, "learning_curve": False, "resamples": 50}
    llm = LLM(str(model), layers=[1, 2], positions=LastPromptToken())
    module = SteeringAdaptor(llm, method, Answers(), (0.9, 0.5), **choices)
    trainer, data = quiet_trainer(default_root_dir=tmp_path), data_of(file, tmp_path / "cache")
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)
    report = json.loads((tmp_path / "report.json").read_text())["metrics"]
    site_edits = {s: (lambda h, m=m: m(h, module.strength)) for s, m in module.methods.items()}
    batch = [MultipleChoice(e.prompt, data.choices) for e in data.test]
    truth = torch.tensor([e.label for e in data.test])
    for name, edits in (("_base", None), ("", site_edits)):
        answered = answer(llm, batch, edits, 8)
        none = ~answered.parsed
        assert report[f"no_label{name}"]["value"] == pytest.approx(float(none.double().mean()))
        own = _right(llm, answered, edits, truth)
        assert report[f"accuracy{name}"]["value"] == pytest.approx(float((own * ~none).double().mean()))


def _right(llm: LLM, answered: Answered, edits: Any, truth: Tensor) -> Tensor:
    p = llm.scores(answered.questions, edits)[0].exp()
    return torch.stack([p[:, k == LABEL_OF].sum(1) for k in range(3)], 1).argmax(1) == truth


@pytest.mark.parametrize("wrong", [{"max_new_tokens": 0}, {"rows_at_once": -1}])
def test_wrong_settings_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="max_new_tokens and rows_at_once are positive"):
        Answering(**wrong)
