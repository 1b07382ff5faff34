"""A run is not taken for another: of any data module and any method, by layer, method, split, model and data."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from runs import CHANGES, METHODS, USED, fit, folder_with_models, given, other_model

from lightning_steer.__main__ import main

here = pytest.fixture(scope="module", name="here")(folder_with_models)


@pytest.fixture
def copied(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Enter a copy of the folder as it is now."""
    monkeypatch.chdir(here)

    def enter() -> Path:
        shutil.copytree(here, tmp_path / "copy", symlinks=True)
        monkeypatch.chdir(tmp_path / "copy")
        return tmp_path / "copy"

    return enter


@pytest.mark.slow
@pytest.mark.parametrize(("experiment", "what"), USED)
def test_a_run_used_elsewhere_is_refused_or_named_in_the_report(
    experiment: str, what: str, copied: Callable[[], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    fit(experiment, "mean_difference")
    folder = copied()
    shutil.rmtree(folder / "logs")
    more, expected = CHANGES[experiment][what]
    if what == "model":
        other_model()
    capsys.readouterr()
    assert main(given("test", experiment, "mean_difference", *more)) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert len([line for line in error.splitlines() if line.startswith("lightning_steer:")]) == 1
    assert not list(folder.rglob("report.json"))
    assert main(given("test", experiment, "mean_difference", *more, "--accept_mismatch=true")) == 0
    (path,) = folder.rglob("report.json")
    assert any(expected in sentence for sentence in json.loads(path.read_text())["mismatches"])
    assert expected in path.with_name("report.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_run_of_any_method_is_not_taken_for_another(
    method: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(here)
    experiment = "steer_mera" if "mera" in method else "steer_toy"
    path, alike = fit(experiment, method) / "best.ckpt", [m for m in METHODS if ("mera" in m) == ("mera" in method)]
    other = alike[alike.index(method) - 1]
    assert main(given("test", experiment, other, f"--ckpt_path={path}")) == 2
    error = capsys.readouterr().err
    assert "fitted to something else (" in error
    assert "method " in error or "settings " in error
    assert main(given("test", experiment, method, "--trainer.logger=false")) == 0
