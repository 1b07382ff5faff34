"""MERA as a user types it: own data in one YAML, a certificate or none, probes, one process as two."""

import json
import os
import subprocess
import sys

import pytest
import torch
import yaml
from conftest import ROOT
from test_mera_study import folder

from lightning_steer.__main__ import main

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
SMALL = ["--data.init_args.train=200", "--data.init_args.calibration=60", "--data.init_args.test=60"]
QUICK = ["--model.init_args.random_draws=2", "--model.init_args.resamples=50"]


@pytest.fixture
def own(workshop):
    """A user's folder: a model, a table, and one YAML."""
    folder(workshop / "model", False)
    words = ("great lovely superb", "awful boring ugly")
    rows = []
    for i in range(400):
        known = words[i % 2].split()
        rows.append({"review": f"Review: {known[i % 3]} {known[i // 3 % 3]}. {i}", "mood": "+-"[i % 2]})
    (workshop / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {
        "class_path": "LabelledFile",
        "init_args": {
            "file": "own.jsonl",
            "template": "{review} Answer:",
            "label_column": "mood",
            "labels": {"+": ["positive"], "-": ["negative"]},
        },
    }
    config = {
        "data": {"class_path": "MERADataModule", "init_args": {"source": source}},
        "model": {"init_args": {"backbone": {"init_args": {"llm": "model", "layers": [1, 2]}}}},
    }
    (workshop / "own.yaml").write_text(yaml.safe_dump(config))
    return workshop


def run(command, config, *more):
    return main([command, "--config", f"configs/{config}.yaml", *more, "--config", "own.yaml", *SMALL, *QUIET])


@pytest.mark.parametrize("method", ["mera", "mera_mahalanobis", "contrastive"])
def test_own_data_in_one_yaml(own, method, capsys):
    more = ["--config", f"configs/methods/{method}.yaml"]
    assert run("fit", "steer_mera", *more, *QUICK) == 0, capsys.readouterr().err
    assert run("test", "steer_mera", *more, *QUICK) == 0, capsys.readouterr().err
    report = json.loads((own / "logs" / "steer_mera" / method / "report.json").read_text())
    assert report["task"] == "own"
    assert {"spi", "accuracy_base", "accuracy", "balanced_accuracy", "mcc", "certified_bound"} <= report[
        "metrics"
    ].keys()
    assert report["metrics"]["accuracy"]["n"] == 60
    assert report["baselines"]["baseline"]["spi"]["how"] == "by definition"


def test_probes_of_own_data(own, capsys):
    assert run("fit", "probe") == 0, capsys.readouterr().err
    assert run("test", "probe") == 0, capsys.readouterr().err
    report = json.loads((own / "logs" / "probe" / "sentiment_analysis" / "report.json").read_text())
    assert len(report["layers"]["r2"]) == 2
    assert report["metrics"]["auc_logistic"]["n"] == 60


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(file="none.jsonl"), "there is no data file none.jsonl"),
        (lambda a: a.update(label_column="tone"), "has no column 'tone'; its columns are review, mood"),
        (lambda a: a["labels"].update({"-": ["positive"]}), "'positive' stands for both '+' and '-'"),
        (lambda a: a["labels"].update({"-": ["zzz"]}), "the continuation ' zzz' after"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(own, change, message, capsys):
    config = yaml.safe_load((own / "own.yaml").read_text())
    change(config["data"]["init_args"]["source"]["init_args"])
    (own / "own.yaml").write_text(yaml.safe_dump(config))
    assert run("fit", "steer_mera", "--config", "configs/methods/mera.yaml", *QUICK) == 2
    stderr = capsys.readouterr().err
    assert message in stderr
    assert "Traceback" not in stderr
    assert sum(line.startswith("lightning_steer:") for line in stderr.splitlines()) == 1


@pytest.mark.slow
def test_two_processes_give_what_one_gives(own):
    reports = {}
    for devices in (1, 2):
        for config, more in (
            ("steer_mera", ["--config", "configs/methods/mera_mahalanobis.yaml", *QUICK]),
            ("probe", []),
        ):
            for command in ("fit", "test"):
                arguments = ["--config", f"configs/{config}.yaml", *more, "--config", "own.yaml", *SMALL, *QUIET]
                arguments += ["--trainer.devices", str(devices), "--run", f"of_{devices}"]
                arguments += ["--trainer.strategy", "ddp"] if devices > 1 else []
                subprocess.run(
                    [sys.executable, "-m", "lightning_steer", command, *arguments],
                    check=True,
                    env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                    capture_output=True,
                )
            reports[config, devices] = json.loads((own / "logs" / config / f"of_{devices}" / "report.json").read_text())
    for config in ("steer_mera", "probe"):
        single, two = (reports[config, devices]["metrics"] for devices in (1, 2))
        assert single.keys() == two.keys()
        for name in single:
            assert single[name]["n"] == two[name]["n"], name
            torch.testing.assert_close(
                torch.tensor(two[name]["value"] or 0.0),
                torch.tensor(single[name]["value"] or 0.0),
                rtol=1e-5,
                atol=1e-5,
            )
