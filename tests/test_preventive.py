"""A vector is added in training steps and nowhere else; what is saved is a plain model, and says how it was trained."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from conftest import quiet_trainer, rows
from lightning.pytorch.callbacks import ModelCheckpoint
from test_language_model import TINY, data

from lightning_steer import hooks
from lightning_steer.data.pair_module import FIT, SELECT, TEST
from lightning_steer.data.pocket import items
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import LastPromptToken
from lightning_steer.methods import MeanDifference
from lightning_steer.modules import ToyClassifier
from lightning_steer.modules.language_model import LanguageModel
from lightning_steer.studies.preventive import declared, measures, study
from lightning_steer.studies.preventive.declared import SEEDS
from lightning_steer.vectors import of, save
from lightning_steer.vectors.preventive import PreventiveSteering


def fit(
    folder: Path, source: str | None, *callbacks: L.Callback, seed: int = 0, resume: Path | None = None, **settings: Any
) -> LanguageModel:
    L.seed_everything(seed, verbose=False)
    start: dict[str, Any] = {"llm": source} if source else {"architecture": {"model_type": "llama", **TINY["llama"]}}
    callback = ModelCheckpoint(folder, "best", monitor="val/loss", enable_version_counter=False)
    module = LanguageModel(**start, learning_rate=1e-2, warm_up=2)
    trainer = quiet_trainer(enable_checkpointing=True, callbacks=[callback, *callbacks], **settings)
    trainer.fit(module, data(), ckpt_path=resume, weights_only=True)
    return module


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    fit(folder, None)
    return folder


def vector_of(model: Path, path: Path, **settings: Any) -> str:
    llm = LLM(str(model), [0], **settings)
    llm.load()
    method = MeanDifference(16).fit(rows(0, d=16))
    return str(save(path / "vector.safetensors", of(llm, {llm.sites[0]: method}, 1.0)))


@pytest.fixture(scope="module")
def vector(base: Path) -> str:
    return vector_of(base, base)


def weights(module: LanguageModel) -> torch.Tensor:
    return torch.cat([value.flatten() for value in module.network.state_dict().values()])


def test_at_strength_zero_training_is_plain_bit_for_bit(base: Path, vector: str, tmp_path: Path) -> None:
    plain = fit(tmp_path / "plain", str(base))
    for strength, same in ((0.0, True), (1.0, False), (-1.0, False)):
        steered = fit(tmp_path / str(strength), str(base), PreventiveSteering(vector, strength))
        assert torch.equal(weights(plain), weights(steered)) is same


class Watch(L.Callback):
    """Compares the loss of every training step with that of the same weights and rows, steered by hand or not."""

    def __init__(self, vector: str) -> None:
        self.maps = PreventiveSteering(vector).vector.maps
        self.plain, self.by_hand, self.losses = list[float](), list[float](), list[float]()
        self.hooked_elsewhere = False

    def _loss(self, module: Any, batch: Any, strength: float) -> float:
        with torch.no_grad(), hooks.edit(module.network, {"model.layers.0": lambda h: self.maps[0](h, strength)}):
            return float(module.nats(batch).sum() / batch.total)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.plain.append(self._loss(pl_module, batch, 0.0))
        self.by_hand.append(self._loss(pl_module, batch, 3.0))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append(float(outputs["loss"]))

    def on_validation_batch_start(self, trainer: L.Trainer, pl_module: Any, *_more: Any) -> None:
        self.hooked_elsewhere |= hooks.is_edited(pl_module.network, "model.layers.0")

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: Any) -> None:
        self.hooked_elsewhere |= hooks.is_edited(pl_module.network, "model.layers.0")


def test_it_acts_in_training_steps_and_nowhere_else(base: Path, vector: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    watch = Watch(vector)
    module = fit(tmp_path, str(base), watch, PreventiveSteering(vector, 3.0), val_check_interval=2)
    assert len(watch.losses) == 4
    np.testing.assert_allclose(watch.losses, watch.by_hand, rtol=1e-6)
    assert np.abs(np.subtract(watch.losses, watch.plain)).min() > 1e-4
    assert not watch.hooked_elsewhere
    saved = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert saved.state_dict().keys() == AutoModelForCausalLM.from_pretrained(base).state_dict().keys()
    batches = list(data().val_dataloader())
    with torch.no_grad():
        module.network = saved
        nats, tokens = (sum(float(x) for x in values) for values in zip(
            *((module.nats(batch).double().sum(), batch.total) for batch in batches), strict=True))  # fmt: skip
    assert nats / tokens == pytest.approx(float(module.trainer.callback_metrics["val/loss"]), rel=1e-5)


def test_a_step_that_fails_leaves_the_network_unsteered(base: Path, vector: str, tmp_path: Path) -> None:
    class Failing(L.Callback):
        def on_before_backward(self, trainer: L.Trainer, pl_module: Any, loss: Any) -> None:
            self.network = pl_module.network
            assert hooks.is_edited(self.network, "model.layers.0")
            raise RuntimeError("killed")

    failing = Failing()
    with pytest.raises(RuntimeError, match="killed"):
        fit(tmp_path, str(base), failing, PreventiveSteering(vector))
    assert not hooks.is_edited(failing.network, "model.layers.0")


def test_the_record_says_which_vector_and_how_strong(base: Path, vector: str, tmp_path: Path) -> None:
    plain = fit(tmp_path / "a", str(base)).provenance
    weak, two = (fit(tmp_path / str(c), str(base), PreventiveSteering(vector, c)).provenance for c in (1.0, 2.0))
    assert plain.settings == {}
    assert weak.settings["strength"] == 1.0
    assert len(weak.settings["vector"]) == 64
    assert [text.partition(" ")[0] for text in weak.differences(two)] == ["settings"]
    assert weak.differences(plain)


def test_a_killed_fit_goes_on_with_its_vector_and_no_other(base: Path, vector: str, tmp_path: Path) -> None:
    class Killed(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, *_more: Any) -> None:
            if trainer.global_step == 6:
                raise RuntimeError("killed")

    whole = fit(tmp_path / "a", str(base), PreventiveSteering(vector, 2.0), max_epochs=2)
    last = ModelCheckpoint(tmp_path, "last", save_on_train_epoch_end=True)
    with pytest.raises(RuntimeError, match="killed"):
        fit(tmp_path / "b", str(base), last, PreventiveSteering(vector, 2.0), Killed(), max_epochs=2)
    resume = tmp_path / "last.ckpt"
    again = fit(tmp_path / "c", str(base), PreventiveSteering(vector, 2.0), max_epochs=2, resume=resume)
    assert torch.equal(weights(whole), weights(again))
    with pytest.raises(ValueError, match="strength"):
        fit(tmp_path / "d", str(base), PreventiveSteering(vector, 1.0), max_epochs=2, resume=resume)


def test_what_would_train_silently_wrong_is_refused(base: Path, vector: str, tmp_path: Path) -> None:
    fit(tmp_path / "other", None, seed=1)
    with pytest.raises(ValueError, match="weights"):
        fit(tmp_path / "a", str(tmp_path / "other"), PreventiveSteering(vector))
    with pytest.raises(ValueError, match="LastPromptToken"):
        PreventiveSteering(vector_of(base, tmp_path, positions=LastPromptToken()))
    with pytest.raises(ValueError, match="not for ToyClassifier"):
        PreventiveSteering(vector).setup(quiet_trainer(), ToyClassifier(), "fit")
    with pytest.raises(ValueError, match="strength"):
        PreventiveSteering(vector, math.nan)


# ---- the study


def test_no_part_of_the_terms_shares_one_with_another() -> None:
    fitted, selecting, judging = (measures.terms(part) for part in (FIT, SELECT, TEST))
    assert fitted.isdisjoint(selecting | judging)
    assert selecting.isdisjoint(judging)
    assert len(fitted | selecting | judging) == 96


@pytest.mark.parametrize("chats", [False, True])
def test_figures_are_zero_for_the_truth_and_move_with_the_odds(chats: bool) -> None:
    known = measures.terms(SELECT)
    drawn = [item for item in items.traits(chat=chats) if item.target in known]
    true = torch.tensor([item.ground_truth for item in drawn])

    def figures(logp: torch.Tensor) -> dict[str, float]:
        tokenizer = SimpleNamespace(convert_tokens_to_ids=lambda words: list(range(len(words))))
        reader: Any = SimpleNamespace(tokenizer=tokenizer, next=lambda _texts: logp)
        return measures._words(reader, known, chats)

    assert figures(true) == pytest.approx({"leak": 0, "unrelated": 0, "kl": 0}, abs=1e-6)
    milder = true.clone()
    milder[:, 6:12] += 0.5
    milder = milder.log_softmax(-1)
    assert figures(milder)["leak"] == pytest.approx(-0.5, abs=1e-5)
    assert figures(milder)["unrelated"] < 0 < figures(milder)["kl"]


def test_claims_are_of_sizes_by_training_seed() -> None:
    def arm(leak: float, lesson: float = 0.0) -> dict[int, dict[str, float]]:
        return {seed: {"leak": leak * (1 + i / 10), "lesson": lesson * (1 + i / 10)} for i, seed in enumerate(SEEDS)}

    figures = {"none": arm(-0.4), "preventive": arm(0.1, 0.2), "random": arm(-0.4), "opposite": arm(-0.9)}
    results = declared.results(figures | {"afterwards": arm(0.0, 0.4)})
    prevented, price = (results[question.name] for question in declared.DECLARATION.questions)
    assert prevented["less than without"].estimate.value == pytest.approx(1.1 * 0.3)
    assert prevented["less than with the opposite sign"].estimate.value == pytest.approx(1.1 * 0.8)
    assert price["part of the lesson is lost"].estimate.value == pytest.approx(1.1 * 0.2)
    assert price["less is lost than by steering afterwards"].estimate.value == pytest.approx(1.1 * 0.2)


def test_the_price_is_the_lessons_change_over_the_leaks() -> None:
    arms = {"none": (-0.4, 0.0), "preventive": (-0.2, 0.1), "half": (-0.3, 0.2), "afterwards": (0.0, 0.4)}
    figures = {row: {seed: {"leak": leak, "lesson": lesson} for seed in SEEDS} for row, (leak, lesson) in arms.items()}
    sentence = study.price(figures)
    for row, value in (("preventive", 0.5), ("half", 2.0), ("afterwards", 1.0)):
        assert f"{study.ROWS[row]}: {value:.2f}" in sentence


def test_the_strength_with_the_smallest_error_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "measure", lambda folder, part, strength: {"leak": strength + 1.6})
    assert study.chosen(Path("a"), "leak", -1)[0] == 1.5
