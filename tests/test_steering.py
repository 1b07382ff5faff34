"""The adaptor from end to end on a tiny network: fit, choose, report, save, share out."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import WORLD, quiet_trainer

import lightning_steer as ls
from lightning_steer.data import ToyDataModule
from lightning_steer.errors import UserError
from lightning_steer.methods import (
    ACE,
    Identity,
    LearnedVector,
    LoReFT,
    MeanDifference,
    RandomDirection,
    Ridge,
    SteeringMethod,
)
from lightning_steer.metrics import AttributeEffect
from lightning_steer.modules import SteeringAdaptor, interventions
from lightning_steer.networks import ToyBackbone

STRENGTHS = (0.5, 1.0, 2.0, 4.0)


def adaptor(checkpoint: Path, method: Callable[[int], SteeringMethod], **settings: object) -> SteeringAdaptor:
    settings = {"strengths": STRENGTHS, "random_draws": 4, "resamples": 200, **settings}
    return SteeringAdaptor(ToyBackbone(str(checkpoint)), method, AttributeEffect(), **settings)  # type: ignore[arg-type]


def data(**settings: object) -> ToyDataModule:
    return ToyDataModule(**{"pairs": 64, "test_rows": 200, **WORLD, **settings})  # type: ignore[arg-type]


def run(module: SteeringAdaptor, pairs: ToyDataModule, tmp_path: Path, **settings: object) -> dict:
    trainer = quiet_trainer(default_root_dir=tmp_path, **settings)
    trainer.fit(module, pairs)
    trainer.test(module, pairs, verbose=False)
    return module.report


def test_mean_difference_steers_a_network_without_by_pass(toy_checkpoints: dict, tmp_path: Path) -> None:
    report = run(adaptor(toy_checkpoints["none"], MeanDifference), data(), tmp_path)
    metrics, unsteered = report["metrics"], report["baselines"]["baseline"]
    assert unsteered["target_accuracy"]["value"] == 0
    assert metrics["target_accuracy"]["value"] > 0.9
    assert metrics["off_target_accuracy"]["value"] > 0.9
    assert report["baselines"]["random_control"]["target_accuracy"]["value"] < 0.2
    assert report["baselines"]["oracle_patch"]["target_accuracy"]["value"] > 0.95
    assert abs(metrics["bypass"]["value"]) < 0.05
    assert metrics["cosine_class"]["value"] > max(0.95, metrics["cosine_pair"]["value"])
    assert metrics["strength"]["n"] == 16
    assert metrics["target_accuracy"]["n"] == 200
    assert not report["warnings"]
    for figure in ("dose_response", "drift", "pairs"):
        assert (tmp_path / f"{figure}.png").stat().st_size > 1000
        assert (tmp_path / f"{figure}.svg").is_file()
    assert (tmp_path / "report.json").is_file()
    assert "| baseline (unsteered) |" in (tmp_path / "report.md").read_text()
    judged = {measure.name: measure for measure in ls.judge(tmp_path).measures}
    assert judged.keys() == {"target_accuracy", "target_unchanged", "off_target_accuracy", "exact_match"}
    (chosen,) = [
        setting for setting in judged["exact_match"].settings if float(setting.setting) == metrics["strength"]["value"]
    ]
    assert chosen.value.value == pytest.approx(metrics["exact_match"]["value"])


def test_a_by_pass_is_measured_and_warned_of(toy_checkpoints: dict, tmp_path: Path) -> None:
    report = run(adaptor(toy_checkpoints["projection"], MeanDifference, strengths=(1.0, 2.0)), data(), tmp_path)
    assert report["metrics"]["bypass"]["value"] > 0.5
    assert "by-passes this site" in report["warnings"][0]
    assert report["metrics"]["target_accuracy"]["value"] < 0.1
    assert report["fitted_rows"]["target_accuracy"]["value"] < 0.1


@pytest.mark.parametrize("method", [LearnedVector, partial(LoReFT, rank=4)])
def test_trained_methods_steer_round_the_by_pass(
    method: Callable[[int], SteeringMethod], toy_checkpoints: dict, tmp_path: Path
) -> None:
    module = adaptor(toy_checkpoints["projection"], method, learning_rate=0.05)
    report = run(module, data(), tmp_path, max_epochs=80, check_val_every_n_epoch=40)
    assert report["metrics"]["target_accuracy"]["value"] > 0.7
    assert "pairs" not in report["curves"]


def test_no_steering_changes_nothing(toy_checkpoints: dict, tmp_path: Path) -> None:
    report = run(adaptor(toy_checkpoints["none"], Identity), data(), tmp_path)
    for name in ("target_accuracy", "target_unchanged", "off_target_accuracy", "exact_match", "drift_kl"):
        steered, unsteered = report["metrics"][name], report["baselines"]["baseline"][name]
        assert [steered[key] for key in ("value", "n")] == [unsteered[key] for key in ("value", "n")]
        assert unsteered["how"] == "by definition" or steered == unsteered
    assert report["metrics"]["drift_kl"]["value"] == 0


def test_several_attributes_are_steered_at_once(toy_checkpoints: dict, tmp_path: Path) -> None:
    report = run(adaptor(toy_checkpoints["none"], Ridge), data(pairs=400, target=[0, 2]), tmp_path)
    assert report["metrics"]["target_accuracy"]["value"] > 0.8
    drift = report["profile"]["kl"]["value"]
    assert [value != value for value in drift] == [True, False, True, False, False, False]  # NaN at the targets


@pytest.mark.parametrize("site", ["layers.2.linear", "layers.1", "layers.3"])
def test_any_layer_before_or_after_its_activation(site: str, toy_checkpoints: dict, tmp_path: Path) -> None:
    module = adaptor(toy_checkpoints["none"], MeanDifference)
    module.backbone = ToyBackbone(str(toy_checkpoints["none"]), site)
    assert run(module, data(), tmp_path)["metrics"]["target_accuracy"]["value"] > 0.8


def test_the_strength_is_chosen_on_rows_that_the_test_never_sees(toy_checkpoints: dict, tmp_path: Path) -> None:
    module = adaptor(toy_checkpoints["none"], MeanDifference)
    run(module, data(), tmp_path)
    chosen = module.strength
    quiet_trainer(default_root_dir=tmp_path).validate(module, data(seed=7), verbose=False)
    assert module.strength == chosen  # looking again does not choose again


def test_a_sweep_is_each_strength_by_itself(toy_backbone: ToyBackbone) -> None:
    batch = next(iter(data().test_dataloader()[0]))
    site = toy_backbone.sites[0]
    h = toy_backbone.activations(torch.cat([batch.x, batch.x_positive]))[site]
    from lightning_steer.records import Activations

    error = torch.cat([torch.ones(200), torch.zeros(200)])
    method = MeanDifference(h.shape[1]).fit(Activations(h, error, torch.zeros(400, 1).long(), True))
    groups = [interventions.unsteered(), interventions.steered("", {site: method}, STRENGTHS)]
    scores = toy_backbone.scores(batch.x, *interventions.together(groups, [site]))
    for strength, together in zip((0.0, *STRENGTHS), scores, strict=True):
        alone = toy_backbone.scores(batch.x, {site: lambda h, s=strength: method(h, s)})[0]
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scores[0], toy_backbone.scores(batch.x)[0], rtol=1e-5, atol=1e-5)


def test_a_checkpoint_brings_back_the_very_same_report(toy_checkpoints: dict, tmp_path: Path) -> None:
    module = adaptor(toy_checkpoints["none"], ACE)
    trainer = quiet_trainer(default_root_dir=tmp_path)
    trainer.fit(module, data())
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    trainer.test(module, data(), verbose=False)
    first = copy.deepcopy(module.report)
    saved = torch.load(tmp_path / "saved.ckpt", weights_only=True)
    assert not any(name.startswith("backbone") for name in saved["state_dict"])
    again = adaptor(toy_checkpoints["none"], ACE)
    quiet_trainer(default_root_dir=tmp_path).test(
        again, data(), ckpt_path=tmp_path / "saved.ckpt", verbose=False, weights_only=True
    )
    assert repr(again.report["metrics"]) == repr(first["metrics"])  # NaN, where there is no interval, equals nothing
    assert repr(again.report["baselines"]) == repr(first["baselines"])


def test_a_checkpoint_of_another_method_or_shape_is_refused(toy_checkpoints: dict, tmp_path: Path) -> None:
    trainer = quiet_trainer(default_root_dir=tmp_path)
    trainer.fit(adaptor(toy_checkpoints["none"], MeanDifference), data())
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    ace = adaptor(toy_checkpoints["none"], ACE)
    with pytest.raises(ValueError, match="method MeanDifference, not ACE"):
        quiet_trainer().test(ace, data(), ckpt_path=tmp_path / "saved.ckpt")
    ace.accept_mismatch = True
    with pytest.raises(ValueError, match="of another method"):
        quiet_trainer().test(ace, data(), ckpt_path=tmp_path / "saved.ckpt")
    other = adaptor(toy_checkpoints["none"], MeanDifference)
    other.backbone = ToyBackbone(str(toy_checkpoints["none"]), "layers.1")
    with pytest.raises(ValueError, match=r"sites layers.2, not layers.1"):
        quiet_trainer().test(other, data(), ckpt_path=tmp_path / "saved.ckpt")
    other.accept_mismatch = True
    with pytest.raises(ValueError, match=r"has shape \[16\], but this network, site and method need \[32\]"):
        quiet_trainer().test(other, data(), ckpt_path=tmp_path / "saved.ckpt")


def test_testing_before_fitting_is_refused(toy_checkpoints: dict) -> None:
    with pytest.raises(UserError, match="no strength was chosen yet: run fit first"):
        quiet_trainer().test(adaptor(toy_checkpoints["none"], RandomDirection), data(), verbose=False)


def test_the_frozen_network_stays_as_it_was(toy_checkpoints: dict, tmp_path: Path) -> None:
    module = adaptor(toy_checkpoints["projection"], LearnedVector)
    run(module, data(), tmp_path, max_epochs=3)
    fresh = ToyBackbone(str(toy_checkpoints["projection"]))
    fresh.load()
    for before, after in zip(fresh.parameters(), module.backbone.parameters(), strict=True):
        assert torch.equal(before, after)
        assert not after.requires_grad
