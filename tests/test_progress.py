"""Lines of progress: none of quick work, and the time that is left by what was done so far."""

import pytest
from conftest import quiet_trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from lightning_steer.progress import EVERY, Progress, duration
from lightning_steer.runs.progress_lines import ProgressLines


def test_quick_work_says_nothing_and_long_work_how_long_the_rest_takes(capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    progress = Progress("search", 10.0, lambda: now)
    for _ in range(3):
        progress.step()
    assert capsys.readouterr().err == ""
    now += 2 * EVERY
    progress.step(2.0, "layer 3")
    assert capsys.readouterr().err == "search: 50 % done, about 20 s left; layer 3\n"
    progress.step()
    assert capsys.readouterr().err == ""  # it has just said so
    now += 40 * EVERY
    progress.step(3.0)
    assert capsys.readouterr().err == "search: 90 % done, about 47 s left\n"
    now += EVERY
    progress.step(3.0)  # more than was expected
    assert capsys.readouterr().err == "search: 100 % done, about 0 s left\n"


def test_without_an_end_it_says_what_was_done(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    progress = Progress("search", None, lambda: now)
    now = 200.0
    progress.step()
    assert capsys.readouterr().err == "search: 1 done in 3 min\n"


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (99.0, "99 s"), (150.0, "2 min"), (9000.0, "2.5 h")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_run_says_how_far_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_steer.progress.EVERY", 0.0)
    trainer = quiet_trainer(max_epochs=2, callbacks=[ProgressLines()], limit_train_batches=2, limit_test_batches=2)
    model = BoringModel()
    trainer.fit(model)
    trainer.test(model, verbose=False)
    lines = [line.partition(", about")[0] for line in capsys.readouterr().err.splitlines() if "done, about" in line]
    shares = [f"fit: {share} % done" for share in (25, 50, 75, 100)]
    assert lines == [*shares, "test: 50 % done", "test: 100 % done"]
