"""What a model does with the rows to learn from is computed once: the numbers stay, changes are noticed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import quiet_trainer
from decoders import decoder
from lightning.pytorch.callbacks import ModelCheckpoint
from test_mera_study import folder
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from lightning_steer.cache import build, ensure
from lightning_steer.data import observations
from lightning_steer.data.mera.generated_answers import Answering
from lightning_steer.data.mera.module import MERADataModule
from lightning_steer.data.mera.tasks import PocketTask
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import AllTokens, LastPromptToken
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.methods import MERA
from lightning_steer.metrics import Answers
from lightning_steer.modules import ErrorProbe, SteeringAdaptor
from lightning_steer.networks import ToyBackbone

TRAIN, CALIBRATION, TEST = 200, 60, 70


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("base"), False)


def data_of(cache: Path | None, seed: int = 0) -> MERADataModule:
    source, place = PocketTask("sentiment_analysis"), None if cache is None else str(cache)
    return MERADataModule(source, TRAIN, CALIBRATION, TEST, batch_size=64, seed=seed, cache=place)


def probe_of(model: Path, cache: Path | None, seed: int = 0, layers: tuple[int, ...] = (0, 2)) -> ErrorProbe:
    llm = LLM(str(model), layers=list(layers), positions=LastPromptToken())
    probe = ErrorProbe(llm, Answers(), logistic_penalties=[0.05])
    quiet_trainer().fit(probe, data_of(cache, seed))
    return probe


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many questions the model has scored, and of how many texts activations were recorded."""
    count = {"scored": 0, "recorded": 0}

    def counting(function: Any, name: str, place: int) -> Any:
        def counted(*given: Any, **more: Any) -> Any:
            count[name] += len(given[place])
            return function(*given, **more)

        return counted

    for name in ("observe", "scores"):
        monkeypatch.setattr(LLM, name, counting(getattr(LLM, name), "scored", 1))
    monkeypatch.setattr(build, "record", counting(build.record, "recorded", 1))
    return count


def test_probes_are_the_same_and_the_second_fit_reads(model: Path, tmp_path: Path, asked: dict[str, int]) -> None:
    plain = probe_of(model, None)
    assert asked == {"scored": TRAIN + CALIBRATION, "recorded": 0}
    for counts in ((TRAIN + CALIBRATION, TRAIN), (CALIBRATION, 0)):
        asked.update(scored=0, recorded=0)
        cached = probe_of(model, tmp_path)
        assert tuple(asked.values()) == counts
        torch.testing.assert_close(cached.weight, plain.weight, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(cached.intercept, plain.intercept, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(cached.score, plain.score, rtol=1e-5, atol=1e-6)


def test_what_has_changed_is_computed_again_with_a_sentence(
    model: Path, tmp_path: Path, asked: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    cache, other = tmp_path / "cache", tmp_path / "other"
    probe_of(model, cache)
    output = capsys.readouterr().out
    assert f"Answering {TRAIN} questions: {cache / observations.NAME} is not there yet." in output
    assert "out of date" not in output
    probe_of(model, cache)
    assert "ecording" not in (output := capsys.readouterr().out)
    assert "nswer" not in output
    asked.update(scored=0, recorded=0)
    probe_of(model, cache, layers=(1, 2))  # the answers are the same at whatever layer one reads
    assert asked == {"scored": CALIBRATION, "recorded": TRAIN}
    assert "differs in layers" in capsys.readouterr().out
    first = probe_of(model, cache).weight
    folder(other, False)
    changed = LLM(str(other))
    changed.load()
    with torch.no_grad():
        changed.model.model.layers[1].mlp.down_proj.weight *= 3
    changed.model.save_pretrained(other)
    for other_model, seed, word in ((other, 0, "model weights"), (other, 1, "texts")):
        capsys.readouterr()
        again = probe_of(other_model, cache, seed)
        output = capsys.readouterr().out
        assert f"The answers in {cache} differ in {word}" in output
        assert f"Answering {TRAIN} questions: {cache / observations.NAME} answers other questions." in output
        assert f"The cache in {cache} differs in {word}" in output
        torch.testing.assert_close(again.weight, probe_of(other_model, None, seed).weight, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(again.weight, first, rtol=1e-2)


def test_damaged_answers_are_computed_again(
    model: Path, tmp_path: Path, asked: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    plain = probe_of(model, tmp_path)
    path = tmp_path / observations.NAME
    content = bytearray(path.read_bytes())
    content[-2] ^= 64  # of the last score
    path.write_bytes(content)
    asked.update(scored=0, recorded=0)
    again = probe_of(model, tmp_path)
    assert "answers.safetensors is damaged or of another version (its own sha256 is another)" in capsys.readouterr().out
    assert asked == {"scored": TRAIN + CALIBRATION, "recorded": 0}
    assert torch.equal(again.weight, plain.weight)


def test_a_folder_that_another_run_has_filled_meanwhile_is_refused(model: Path, tmp_path: Path) -> None:
    probe_of(model, tmp_path)
    questions = questions_of(data_of(None))
    reader = observations.Observations(tmp_path, loaded(model), questions)
    assert reader.at(torch.tensor([3, 1])).h["model.layers.2"].shape == (2, 32)
    other = [*questions[:-1], questions[-1]._replace(prompt="a question that was not asked")]
    for llm, batch, answering in (
        (loaded(model, layers=[0]), questions, None),
        (loaded(model), questions[1:], None),
        (loaded(model), other, None),
        (loaded(model), questions[::-1], None),
        (loaded(model, read_positions=AllTokens()), questions, None),
        (loaded(model, normalize="tokens"), questions, None),
        (loaded(model), questions, Answering(5)),
    ):
        with pytest.raises(ValueError, match="another run uses the same folder; give each its own"):
            observations.Observations(tmp_path, llm, batch, answering)


def loaded(model: Path, **settings: Any) -> LLM:
    llm = LLM(str(model), **{"layers": [0, 2], "positions": LastPromptToken(), **settings})
    llm.load()
    return llm


def questions_of(data: MERADataModule) -> list[MultipleChoice]:
    data.setup()
    return [MultipleChoice(example.prompt, data.choices) for example in data.train]


def report(model: Path, out: Path, cache: Path | None, devices: int) -> dict[str, Any]:
    llm = LLM(str(model), layers=[1, 2], positions=LastPromptToken())
    choices = {"random_draws": 2, "learning_curve": False, "resamples": 50}
    module = SteeringAdaptor(llm, lambda width: MERA(width, mahalanobis=True), Answers(), (0.5, 0.1), **choices)
    settings = {"devices": devices, "default_root_dir": out} | ({"strategy": "ddp_fork"} if devices > 1 else {})
    keep = ModelCheckpoint(out, filename="best")
    quiet_trainer(**settings, enable_checkpointing=True, callbacks=[keep]).fit(module, data_of(cache))
    quiet_trainer(**settings).test(
        module, data_of(cache), ckpt_path=out / "best.ckpt", verbose=False, weights_only=True
    )
    return json.loads((out / "report.json").read_text())


def test_steering_is_the_same_with_and_without_on_one_process_and_two(model: Path, tmp_path: Path) -> None:
    plain = report(model, tmp_path / "plain", None, 1)
    for devices in (1, 2):
        cached = report(model, tmp_path / f"of_{devices}", tmp_path / f"cache_{devices}", devices)
        assert cached["metrics"].keys() == plain["metrics"].keys()
        for name, expected in plain["metrics"].items():
            assert cached["metrics"][name]["n"] == expected["n"], name
            assert cached["metrics"][name]["value"] == pytest.approx(expected["value"], abs=1e-4, rel=1e-4), name
    first, two = (sorted(p.name for p in (tmp_path / f"cache_{n}").glob("*.safetensors")) for n in (1, 2))
    assert first == two
    assert len(first) == 2


def test_a_label_that_begins_amid_a_token_is_refused(tmp_path: Path) -> None:
    inner = Tokenizer(BPE({"<unk>": 0, "x": 1, "a": 2, "b": 3, "ab": 4}, [("a", "b")], unk_token="<unk>"))
    words = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")
    llm = LLM("merging", layers=[1], positions=LastPromptToken()).adopt(decoder("llama"), words)
    observations.observe_once(llm, [MultipleChoice("xx", ("a", "b"))], tmp_path / "fine")
    with pytest.raises(ValueError, match="reads the end of the prompt 'xa' and the beginning of its label as one"):
        observations.observe_once(
            llm, [MultipleChoice("xx", ("a", "b")), MultipleChoice("xa", ("a", "b"))], tmp_path / "merged"
        )


def test_other_precisions_and_networks_are_refused(
    model: Path, toy_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    mixed = ErrorProbe(LLM(str(model)), Answers())
    with pytest.raises(ValueError, match=r"the cache is not filled in trainer.precision bf16-mixed"):
        quiet_trainer(precision="bf16-mixed").fit(mixed, data_of(tmp_path))
    toy = ErrorProbe(ToyBackbone(str(toy_checkpoints["none"])), Answers())
    with pytest.raises(ValueError, match="leave it out, or give an LLM as the backbone"):
        quiet_trainer().fit(toy, data_of(tmp_path))


def test_recorded_rows_are_what_the_model_does(model: Path, tmp_path: Path) -> None:
    probe_of(model, tmp_path)
    llm, data = loaded(model), data_of(None)
    recorded = observations.Observations(tmp_path, llm, questions_of(data))
    for batch in data.batches(data.train):
        scores, h = llm.observe(batch.x)
        seen = recorded.at(batch.row)
        torch.testing.assert_close(seen.scores, scores, rtol=1e-5, atol=1e-5)
        for site in llm.sites:
            torch.testing.assert_close(seen.h[site], h[site], rtol=1e-5, atol=1e-5)
    assert len(ensure(llm, [example.prompt for example in data.train], tmp_path, dtype="float32")) == TRAIN
