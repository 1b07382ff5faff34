"""Runs that steer: one of every data module and one of every method, tiny; and what makes each another run."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT, WORLD
from safetensors.torch import load_file, save_file

from lightning_steer.__main__ import main
from lightning_steer.data import PocketStereoSetDataModule
from lightning_steer.data.stereoset.examples import BIAS_TYPES, StereoSetExample

QUICK = [
    *("--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"),
    *("--model.init_args.random_draws=2", "--model.init_args.resamples=20"),
]
LLM = "--model.init_args.backbone.init_args.llm=model"
MERA = [*(f"--data.init_args.{part}={n}" for part, n in (("train", 120), ("calibration", 40), ("test", 40))), LLM]
TOY = [*(f"--data.init_args.{name}={value}" for name, value in WORLD.items()), "--data.init_args.test_rows=20"]
TOY += ["--model.init_args.backbone.init_args.checkpoint=toy.ckpt"]
B, D, M = "--model.init_args.backbone.init_args.", "--data.init_args.", "--model.init_args."
EXPERIMENTS = {"steer_toy": TOY, "steer_stereoset": [LLM], "steer_behaviour": [LLM], "steer_mera": MERA}
EXPERIMENTS["official"] = [LLM, "--experiment=official", "--data=StereoSetDataModule", f"{D}source=dev.json"]
METHODS = sorted(path.stem for path in (ROOT / "configs/methods").glob("*.yaml"))
RUNS = [(experiment, "mean_difference") for experiment in EXPERIMENTS]
RUNS += [("steer_mera" if "mera" in method else "steer_toy", method) for method in METHODS]
STEERED = {
    "ToyDataModule": "steer_toy",
    "PocketStereoSetDataModule": "steer_stereoset",
    "StereoSetDataModule": "official",
    "BehaviourDataModule": "steer_behaviour",
    "MERADataModule": "steer_mera",
}
NOT_STEERED = {"ToyLabelDataModule", "PocketDataModule", "TextDataModule", "ActivationsDataModule", "PromptsDataModule"}
"""These train a network or record it; ``SteeringAdaptor`` refuses them (tests/test_bad_input.py)."""
LAYER = {"layer": ([f"{B}layers=1"], "sites model.layers.")}
METHOD = {"method": ([f"{M}method=RandomDirection"], "method MeanDifference, not RandomDirection")}
SPLIT = {"split": ([f"{D}fit_share=0.2"], "held-out rows were fitted to")}
MODEL = {"model": ([], "weights ")}
SAME = {**LAYER, **METHOD, **SPLIT, **MODEL}
CHANGES: dict[str, dict[str, tuple[list[str], str]]] = {
    "steer_toy": {
        **METHOD,
        **MODEL,
        "layer": ([f"{B}site=layers.2.linear"], "sites layers.2, not layers.2.linear"),
        "split": ([f"{D}select_share=0.5"], "selection rows 16 rows"),
        "data": ([f"{D}target=1"], "fitted rows 48 rows"),
    },
    "steer_stereoset": {**SAME, "data": ([f"{D}tone=harsh"], "fitted rows")},
    "official": {**SAME, "data": ([f"{D}source=other.json"], "fitted rows")},
    "steer_behaviour": {**SAME, "data": ([f"{D}source.init_args.behaviour=myopia"], "fitted rows")},
    "steer_mera": {
        **SAME,
        "split": ([f"{D}seed=5"], "fitted rows 120 rows"),
        "data": ([f"{D}source.init_args.task=yes_no_question", f"{D}source.init_args.pull_share=0.5"], "fitted rows"),
    },
}
USED = [(experiment, what) for experiment, changes in CHANGES.items() for what in changes]


def folder_with_models(
    pocket_decoder: Path, toy_checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("here")
    (folder / "configs").symlink_to(ROOT / "configs")
    shutil.copytree(pocket_decoder, folder / "model")
    weights = load_file(folder / "model/model.safetensors")
    weights["lm_head.weight"] *= 100  # so that some answers are right and some are wrong
    save_file(weights, folder / "model/model.safetensors", {"format": "pt"})
    shutil.copy(toy_checkpoints["none"], folder / "toy.ckpt")
    for name, tone in (("dev", "neutral"), ("other", "harsh")):
        official(folder / f"{name}.json", PocketStereoSetDataModule(tone).examples())
    return folder


def official(path: Path, examples: list[StereoSetExample]) -> None:
    """Examples of the pocket language as an official file, their bias types under official names."""
    types = sorted({example.bias_type for example in examples})
    rows = [
        {
            "id": example.id,
            "target": example.target,
            "bias_type": BIAS_TYPES[types.index(example.bias_type)],
            "context": example.context,
            "sentences": [
                {"sentence": text, "id": f"{example.id}-{label}", "labels": [], "gold_label": label}
                for text, label in zip(example.sentences, ("stereotype", "anti-stereotype", "unrelated"), strict=True)
            ],
        }
        for example in examples
    ]
    path.write_text(json.dumps({"version": "1.0", "data": {"intersentence": rows, "intrasentence": []}}))


def given(command: str, experiment: str, method: str, *more: str) -> list[str]:
    config = "steer_stereoset" if experiment == "official" else experiment
    configs = ["--config", f"configs/{config}.yaml", "--config", f"configs/methods/{method}.yaml"]
    return [command, *configs, *QUICK, *EXPERIMENTS[experiment], *more]


def fit(experiment: str, method: str) -> Path:
    name = yaml.safe_load(Path(f"configs/methods/{method}.yaml").read_text())["run"]
    path = Path("checkpoints", experiment, name)
    if not (path / "best.ckpt").is_file():
        assert main(given("fit", experiment, method)) == 0
    return path


def other_model() -> None:
    """One weight of each network is another."""
    weights = load_file("model/model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] += 0.01
    save_file(weights, "model/model.safetensors", {"format": "pt"})
    content = torch.load("toy.ckpt", weights_only=True)
    next(iter(content["state_dict"].values()))[0] += 0.01
    torch.save(content, "toy.ckpt")
