"""Hundreds of bad inputs: each is answered with one sentence and exit code 2."""

import shutil
from pathlib import Path
from typing import Any

import bad_accepted
import bad_errors
import bad_files
import bad_odd
import bad_tables
import bad_texts
import bad_toy
import pytest
import torch
from bad_commands import cases
from bad_input import Case, faults, run
from conftest import ROOT, WORLD, quiet_trainer

from lightning_steer import cli  # noqa: F401  imported once, before any fork
from lightning_steer.check import __main__ as check  # noqa: F401
from lightning_steer.data import ToyLabelDataModule
from lightning_steer.modules import ToyClassifier
from lightning_steer.vectors import __main__ as export  # noqa: F401

CASES = [*cases(bad_toy.SETTINGS), *cases(bad_texts.SETTINGS), *cases(bad_errors.SETTINGS), *bad_files.CASES]
CASES += [*bad_odd.CASES, *bad_tables.CASES, *bad_accepted.CASES]
EARLY = {
    "finite",
    "at least 1",
    "at least 0",
    "between 0 and",
    "between 0 and 1",
    "above 0",
    "known are",
    "int",
    "bool",
    "float",
    "quotes",
    "twice",
}
"""What is said before any data or model is read: these cases take .2 s each and are the fast suite's."""


def marked(case: Case) -> Any:
    """The case, as slow unless it is refused early."""
    return pytest.param(case, id=case.name, marks=() if case.expected[0] in EARLY else pytest.mark.slow)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, pocket_decoder: Path) -> dict[str, Path]:
    """What a command may read: a toy network, and a language model of the pocket language."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("network") / "best.ckpt"
    trainer = quiet_trainer(max_epochs=1)
    classifier = ToyClassifier(widths=(32, 32, 16, 32))
    trainer.fit(classifier, ToyLabelDataModule(batch_size=8, steps_per_epoch=1, test_rows=8, **WORLD))
    trainer.save_checkpoint(path)
    return {"checkpoints/toy/projection/best.ckpt": path, "decoder": pocket_decoder, "configs": ROOT / "configs"}


@pytest.fixture
def place(models: dict[str, Path], tmp_path: Path) -> Path:
    """A working folder in which the commands would work, were they not wrong."""
    folder = tmp_path / "place"
    for name, path in models.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            (folder / name).symlink_to(path)
        else:
            shutil.copy(path, folder / name)
    return folder


def test_there_are_enough_of_them() -> None:
    assert len({case.arguments + tuple(map(str, case.files.items())) for case in CASES}) >= 400


@pytest.mark.parametrize("case", [marked(case) for case in CASES])
def test_bad_input(case: Case, place: Path, tmp_path: Path) -> None:
    outcome = run(case, place, tmp_path)
    assert not faults(case, outcome), f"{faults(case, outcome)}\n{outcome.out[-300:]}\n{outcome.error[-2500:]}"


@pytest.mark.parametrize("case", bad_accepted.CASES, ids=lambda case: case.name)
def test_what_is_accepted_is_documented(case: Case) -> None:
    assert case.documented is not None
    file, sentence = case.documented
    assert sentence in " ".join((ROOT / file).read_text(encoding="utf-8").split())
