"""Reports of StereoSet show every bias type apart: each as if its rows had been all that were tested."""

import json
from pathlib import Path

import pytest
from chats import BASE
from conftest import quiet_trainer

from lightning_steer.data.stereoset.module import PocketStereoSetDataModule
from lightning_steer.lm.language_model import LLM
from lightning_steer.methods import MeanDifference
from lightning_steer.metrics import StereoSetEffect
from lightning_steer.modules.steering import SteeringAdaptor
from lightning_steer.report.__main__ import main

TYPES = ["town", "trade"]


def test_a_bias_type_is_what_its_rows_alone_give(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    llm = LLM(BASE, 2, normalize="tokens")
    data = PocketStereoSetDataModule()
    module = SteeringAdaptor(llm, MeanDifference, StereoSetEffect(), [2.0], random_draws=2, learning_curve=False)
    trainer = quiet_trainer(default_root_dir=tmp_path)
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)
    report = json.loads((tmp_path / "report.json").read_text())
    groups = report["groups"]["rows"]
    assert report["groups"]["by"] == "bias type"
    assert set(groups) == {*TYPES, *(f"{name}, baseline" for name in TYPES)}
    tested = module.tested.compute()
    for name in TYPES:
        rows = [i for i, group in enumerate(data.held_out_groups) if group == name]
        assert groups[name]["fidelity"]["n"] == len(rows)
        mean = float(tested["steered/fidelity"][rows].double().mean())
        before = float(tested["baseline/p_stereotype"][rows].double().mean())
        assert groups[name]["fidelity"]["value"] == pytest.approx(mean, abs=0.02)  # terms count the same
        assert groups[f"{name}, baseline"]["p_stereotype"]["value"] == pytest.approx(before, abs=0.02)
    assert groups["town"]["fidelity"] != groups["trade"]["fidelity"]
    text = (tmp_path / "report.md").read_text()
    assert "## By bias type" in text
    assert "town, baseline (" in text
    assert main([str(tmp_path), "--html"]) == 0
    assert "By bias type" in (tmp_path / "report.html").read_text()


def test_a_single_type_is_not_shown_twice() -> None:
    assert set(PocketStereoSetDataModule(bias_types=["town"]).held_out_groups) == {"town"}
