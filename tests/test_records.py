"""A run's record and its result are of one fit, whenever the fit ends and however; names keep runs apart."""

import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from conftest import WIDTHS, WORLD, quiet_trainer
from disks import full
from lightning.fabric.plugins import TorchCheckpointIO

from lightning_steer.__main__ import main
from lightning_steer.data import ToyLabelDataModule
from lightning_steer.modules import ToyClassifier
from lightning_steer.runs import saving

FIT = [
    *("fit", "--config", "configs/toy.yaml", *(f"--data.init_args.{name}={value}" for name, value in WORLD.items())),
    *("--model.init_args.widths", "[32,32,16,32]", "--data.init_args.batch_size=16", "--data.init_args.test_rows=50"),
    *("--data.init_args.steps_per_epoch=5", "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false"),
]
OTHER = "--model.init_args.learning_rate=0.001"
FOLDER = Path("checkpoints/toy/projection")


def files() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in FOLDER.iterdir()} if FOLDER.is_dir() else {}


def consistent() -> bool:
    """Whether the record beside the result, if there is one, is that of the result."""
    record = FOLDER / "fit.yaml"
    return not record.exists() or record.read_text() == saving.record_of(FOLDER / "best.ckpt")


DRY = {
    "no epoch": "--trainer.max_epochs=0",
    "a dry run": "--trainer.fast_dev_run=true",
    "no validation": "--trainer.limit_val_batches=0",
}


@pytest.mark.parametrize("dry", DRY)
def test_a_dry_fit_claims_nothing_and_touches_nothing(
    dry: str, workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*FIT, DRY[dry]]) == 0
    printed = capsys.readouterr().out
    assert "Fitted" not in printed
    assert "was not written" in printed
    assert not files()
    assert main(FIT) == 0
    assert "Fitted toy/projection" in capsys.readouterr().out
    before = files()
    assert set(before) == {"best.ckpt", "fit.yaml"}
    assert consistent()
    assert main([*FIT, DRY[dry], OTHER, "--overwrite", "true"]) == 0
    assert "is of an earlier fit" in capsys.readouterr().out
    assert files() == before


def test_going_on_from_another_finished_run_is_no_fit_of_this_one(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(FIT) == 0
    capsys.readouterr()
    assert main([*FIT, "--experiment", "second", "--ckpt_path", str(FOLDER / "best.ckpt")]) == 0
    assert "Fitted" not in capsys.readouterr().out
    assert not Path("checkpoints/second/projection/best.ckpt").exists()


def test_a_failed_refit_leaves_the_old_pair(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(FIT) == 0
    before = files()

    def fail(*_: object) -> None:
        raise ValueError("no luck")

    monkeypatch.setattr("lightning_steer.modules.toy.ToyClassifier.validation_step", fail)
    with pytest.raises(ValueError, match="no luck"):
        main([*FIT, OTHER, "--overwrite", "true"])
    assert files() == before


@pytest.mark.parametrize(("name", "least"), [("os.replace", 3), ("os.open", 1), ("os.unlink", 1)])
def test_an_end_at_any_moment_of_writing_leaves_what_agrees(
    name: str, least: int, workshop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call of the operating system that changes names is the last one in turn, until a fit ends by itself."""
    assert main(FIT) == 0
    weights = torch.load(FOLDER / "best.ckpt", weights_only=True)["state_dict"]
    call, last = getattr(os, name.removeprefix("os.")), 0

    class Killed(BaseException):
        pass

    while True:
        left = last

        def counted(path: object, *more: object, **named: object) -> object:
            nonlocal left
            if str(FOLDER) in str(path):
                if left == 0:
                    raise Killed
                left -= 1
            return call(path, *more, **named)

        with monkeypatch.context() as patch:
            patch.setattr(name, counted)
            try:
                ended = main([*FIT, OTHER, "--overwrite", "true"])
            except Killed:
                ended = None
        assert consistent()
        saved = torch.load(FOLDER / "best.ckpt", weights_only=True)
        rate = yaml.safe_load(saved["record"])["model"]["init_args"]["learning_rate"]
        same = all(torch.equal(value, weights[key]) for key, value in saved["state_dict"].items())
        assert same == (rate != 0.001), "the record in the checkpoint is of its own weights"
        if ended is not None:
            break
        last += 1
    assert last >= least


def test_a_full_disk_leaves_no_empty_checkpoint(
    workshop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as disk:
        full(disk, "best.ckpt")
        assert main(FIT) == 2
    assert "best.ckpt (No space left on device): make room" in capsys.readouterr().err
    assert not files()


@pytest.mark.parametrize("record", [b"", b"model: [", b"\xff\xfe\x00"])
def test_a_half_written_record_beside_an_unfinished_run(
    record: bytes, workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(FIT) == 0
    shutil.copy(FOLDER / "best.ckpt", FOLDER / "unfinished.ckpt")
    (FOLDER / "fit.yaml").write_bytes(record)
    assert main(FIT) == 0
    assert "Going on with the unfinished run" in capsys.readouterr().out
    (FOLDER / "unfinished.ckpt").write_bytes((FOLDER / "best.ckpt").read_bytes()[:100])
    (FOLDER / "fit.yaml").write_bytes(record)
    assert main(FIT) == 0
    assert "cannot be read: starting anew" in capsys.readouterr().out
    assert consistent()


def test_another_run_of_the_same_name_needs_a_word(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(FIT) == 0
    before = files()
    assert main([*FIT, "--data.init_args.seed=3"]) == 2
    error = capsys.readouterr().err
    assert "is a finished run of something else (fitted rows generated rows" in error
    assert "--overwrite true" in error
    assert files() == before
    assert main(FIT) == 0, "the very same again"
    assert main([*FIT, "--data.init_args.seed=3", "--overwrite", "true"]) == 0
    assert files() != before
    assert consistent()


@pytest.mark.parametrize(
    "other",
    [
        "--seed_everything=5",
        OTHER,
        "--data.init_args.batch_size=8",
        "--trainer.gradient_clip_val=0.5",
        "--trainer.accumulate_grad_batches=2",
        "--trainer.max_epochs=2",
    ],
)
def test_a_fit_goes_on_only_with_its_own_settings(
    other: str, workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lightning would go on with the optimizer of the checkpoint, and record the settings of the command."""
    assert main(FIT) == 0
    on = ["--experiment=second", "--ckpt_path", str(FOLDER / "best.ckpt")]
    assert main([*FIT, *on, other]) == 2
    error = capsys.readouterr().err
    assert "leave --ckpt_path out, to begin anew" in error
    assert other.split("=")[0].rpartition(".")[2].removeprefix("--") in error or "rows" in error
    assert not Path("checkpoints/second/projection/best.ckpt").exists()
    assert main([*FIT, *on, "--trainer.log_every_n_steps=1"]) == 0


def test_a_plugin_that_writes_checkpoints_is_kept(tmp_path: Path) -> None:
    written = []

    class Plugin(TorchCheckpointIO):
        def save_checkpoint(self, checkpoint: object, path: object, storage_options: object = None) -> None:
            written.append(Path(str(path)).name)

    callbacks = [saving.BestCheckpoint(tmp_path, filename="best"), saving.UnfinishedCheckpoint(tmp_path)]
    trainer = quiet_trainer(enable_checkpointing=True, callbacks=callbacks, plugins=[Plugin()])
    trainer.fit(ToyClassifier(widths=WIDTHS), ToyLabelDataModule(batch_size=8, steps_per_epoch=2, test_rows=9, **WORLD))
    assert written == ["best.ckpt", "unfinished.ckpt"]
    assert not list(tmp_path.iterdir())
