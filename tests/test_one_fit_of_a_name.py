"""Two fits of one name at the same time: the second one is refused, and a dead one is in nobody's way."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import Command, forked
from test_records import FIT, FOLDER, consistent

from lightning_steer.__main__ import main
from lightning_steer.runs import saving
from lightning_steer.runs.run_lock import NAME, RunLock
from lightning_steer.runs.saving import BestCheckpoint

OTHER_ROWS = "--data.init_args.seed=3"


def test_a_second_fit_of_a_name_is_refused_while_the_first_one_runs(
    workshop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Command(["lightning_steer", *FIT], tmp_path / "first", ("best.ckpt", 1)) as first:
        first.wait_for_stop()
        for more in ([OTHER_ROWS], [OTHER_ROWS, "--overwrite", "true"], []):
            assert main([*FIT, *more]) == 2
            assert "is being written by another fit of this name" in capsys.readouterr().err
        assert main([*FIT, OTHER_ROWS, "--run", "second"]) == 0
        first.go_on()
        first.finish()
    assert "seed: 3" not in str(saving.record_of(FOLDER / "best.ckpt"))
    assert consistent()
    assert not (FOLDER / NAME).exists()


def test_a_killed_fit_does_not_keep_its_name(
    workshop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Command(["lightning_steer", *FIT], tmp_path / "first", ("unfinished.ckpt", 1)) as first:
        first.wait_for_stop()
        assert (FOLDER / NAME).exists()
        first.kill()
    assert (FOLDER / NAME).exists()
    assert main(FIT) == 0
    assert "is being written" not in capsys.readouterr().err
    assert main([*FIT, OTHER_ROWS, "--overwrite", "true"]) == 0
    assert not (FOLDER / NAME).exists()


@pytest.mark.parametrize("end", ["refused", "fails"])
def test_a_fit_that_ends_otherwise_lets_go_of_its_name(
    end: str, workshop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(FIT) == 0
    if end == "refused":
        assert main([*FIT, OTHER_ROWS]) == 2
    else:
        with monkeypatch.context() as patch:
            patch.setattr("lightning_steer.modules.toy.ToyClassifier.validation_step", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                main(FIT)
    RunLock(FOLDER).release()


def test_a_lock_that_is_removed_is_taken_anew(tmp_path: Path) -> None:
    """Between opening and locking, the one who held it may have removed the file that was opened."""
    import lightning_steer.runs.run_lock as module

    held, opened = RunLock(tmp_path), module.open_regular
    calls = []

    def late(path: Path, flags: int) -> int:
        calls.append(path)
        descriptor = opened(path, flags)
        if len(calls) == 1:
            held.release()
        return descriptor

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "open_regular", late)
        mine = RunLock(tmp_path)
    assert len(calls) == 2
    with pytest.raises(ValueError, match="another fit of this name"):
        RunLock(tmp_path)
    mine.release()
    assert not list(tmp_path.iterdir())


def test_a_lock_goes_with_its_process(tmp_path: Path) -> None:
    def die() -> None:
        RunLock(tmp_path)
        os.kill(os.getpid(), signal.SIGKILL)

    assert forked(die, tmp_path / "output") == -signal.SIGKILL
    assert (tmp_path / NAME).exists()
    RunLock(tmp_path).release()


def test_what_hinders_the_first_process_ends_the_others_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that cannot be made: the others wait in the broadcast, and must be told."""

    def full(_folder: Path) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / ".fit.lock"))

    told = []
    strategy = SimpleNamespace(broadcast=lambda problem: told.append(problem) or problem)
    trainer = SimpleNamespace(fast_dev_run=False, is_global_zero=True, strategy=strategy)
    monkeypatch.setattr("lightning_steer.runs.saving.RunLock", full)
    with pytest.raises(ValueError, match=r"No space left on device.*\.fit\.lock"):
        BestCheckpoint(dirpath=tmp_path).on_fit_start(trainer, SimpleNamespace())  # type: ignore[arg-type]
    assert len(told) == 1
