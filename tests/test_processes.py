"""Two processes give the numbers of one, and every row is counted once."""

import json
from pathlib import Path

import pytest
from conftest import WORLD, quiet_trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_steer.data import (
    BehaviourDataModule,
    MERADataModule,
    PocketStereoSetDataModule,
    ToyDataModule,
)
from lightning_steer.data.behaviours.module import PocketBehaviour
from lightning_steer.data.mera.tasks import PocketTask
from lightning_steer.lm.language_model import LLM
from lightning_steer.methods import (
    ACE,
    LEACE,
    MERA,
    GaussianTransport,
    Logistic,
    MeanDifference,
    RandomDirection,
    Ridge,
    SteeringMethod,
)
from lightning_steer.metrics import Answers, AttributeEffect, BehaviourEffect, StereoSetEffect
from lightning_steer.modules import SteeringAdaptor
from lightning_steer.networks import ToyBackbone
from lightning_steer.selection.rule import Best, Certified

CLOSED_FORMS = [MeanDifference, RandomDirection, Logistic, LEACE, ACE, GaussianTransport, Ridge]


def flat(report: object, path: str = "") -> dict[str, object]:
    """All numbers of a report by their path."""
    if isinstance(report, dict):
        return {k: v for key, part in report.items() for k, v in flat(part, f"{path}/{key}").items()}
    if isinstance(report, list):
        return {k: v for i, part in enumerate(report) for k, v in flat(part, f"{path}/{i}").items()}
    return {path: report}


def run(method: type[SteeringMethod], checkpoint: Path, folder: Path, devices: int) -> dict[str, object]:
    """Fit and test; 51 test rows and 21 + 7 pairs share out unevenly, and batches of 8 leave some process without."""
    module = SteeringAdaptor(
        ToyBackbone(str(checkpoint)), method, AttributeEffect(), (0.5, 1.0, 2.0), random_draws=3, resamples=100
    )
    data = ToyDataModule(pairs=28, test_rows=49, batch_size=8, **WORLD)
    settings = {"devices": devices, "default_root_dir": folder}
    if devices > 1:
        settings["strategy"] = "ddp_fork"
    keep = ModelCheckpoint(folder, filename="best")
    quiet_trainer(**settings, enable_checkpointing=True, callbacks=[keep]).fit(module, data)
    quiet_trainer(**settings).test(module, data, ckpt_path=folder / "best.ckpt", verbose=False, weights_only=True)
    return flat(json.loads((folder / "report.json").read_text()))


@pytest.mark.parametrize("method", CLOSED_FORMS)
def test_two_processes_are_one(method: type[SteeringMethod], toy_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    reports = []
    for devices in (1, 2):
        folder = tmp_path / str(devices)
        folder.mkdir()
        reports.append(run(method, toy_checkpoints["none"], folder, devices))
    single, two = reports
    assert single.keys() == two.keys()
    assert single["/metrics/target_accuracy/n"] == two["/metrics/target_accuracy/n"] == 49
    for path, value in single.items():
        if isinstance(value, float):
            assert two[path] == pytest.approx(value, abs=1e-5, rel=1e-5), path
        elif not path.startswith(("/experiment", "/result")):  # sums of two processes differ in their last bits
            assert two[path] == value, path


TASKS = {
    "stereotypes": lambda: (StereoSetEffect(), None, PocketStereoSetDataModule(batch_size=32), MeanDifference),
    "behaviour": lambda: (
        BehaviourEffect(),
        Best(50),
        BehaviourDataModule(PocketBehaviour("truthful", per_topic=3), batch_size=9),
        MeanDifference,
    ),
    "errors": lambda: (
        Answers(),
        Certified(0.05),
        MERADataModule(PocketTask("sms_spam"), train=61, calibration=33, test=47, batch_size=16),
        MERA,
    ),
}


@pytest.mark.parametrize("task", TASKS)
def test_two_processes_are_one_on_language(task: str, pocket_decoder: Path, tmp_path: Path) -> None:
    reports = []
    for devices in (1, 2):
        evaluation, selection, data, method = TASKS[task]()
        strengths = (0.5, 1.0) if method is MeanDifference else (0.7, 0.5)
        llm = LLM(str(pocket_decoder), layers=2, normalize="tokens", tokens_per_batch=512)
        choices = {"selection": selection, "random_draws": 2, "learning_curve": False, "resamples": 50}
        module = SteeringAdaptor(llm, method, evaluation, strengths, **choices)
        folder = tmp_path / str(devices)
        settings = {"devices": devices, "default_root_dir": folder}
        if devices > 1:
            settings["strategy"] = "ddp_fork"
        keep = ModelCheckpoint(folder, filename="best")
        quiet_trainer(**settings, enable_checkpointing=True, callbacks=[keep]).fit(module, data)
        quiet_trainer(**settings).test(module, data, ckpt_path=folder / "best.ckpt", verbose=False, weights_only=True)
        reports.append(flat(json.loads((folder / "report.json").read_text())))
    single, two = reports
    assert single.keys() == two.keys()
    for path, value in single.items():
        if isinstance(value, float):
            assert two[path] == pytest.approx(value, abs=1e-4, rel=1e-4), path
        elif isinstance(value, int):
            assert two[path] == value, path
