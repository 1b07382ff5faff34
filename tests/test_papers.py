"""The papers' experiments, each end to end on tiny random models of its families, and what is said where they lack."""

import json
import re
from pathlib import Path

import pytest
import tiny_papers
from conftest import ROOT

from lightning_steer.studies.papers.__main__ import main

FEW = ["--model.init_args.random_draws=2", "--model.init_args.random_curve=0", "--model.init_args.resamples=50"]
FAST = ["--trainer.accelerator=cpu", "--trainer.logger=false", *FEW]
EXACT = "--model.init_args.backbone.init_args.dtype=float32"


def table(name: str) -> list[list[str]]:
    """The cells of the last table that was written."""
    lines = Path("logs/papers", name, "table.md").read_text().split("\n")
    return [re.split(r" ?\| ?", line)[1:-1] for line in lines if line.startswith("|")]


def test_caa(workshop: Path) -> None:
    tiny_papers.caa(workshop / "data/CAA")
    model = tiny_papers.llama2(workshop / "Llama-2-7b-chat-hf")
    assert main(["caa", "--models", model, *FAST, EXACT]) == 0
    print("\n".join(map(str, table("caa"))))


def test_likelihood(workshop: Path) -> None:
    tiny_papers.caa(workshop / "data/CAA")
    tiny_papers.steer_wrk(workshop / "data/steer_wrk")
    model = tiny_papers.llama2(workshop / "Llama-2-7b-chat-hf")
    assert main(["likelihood", "--models", model, *FAST, EXACT]) == 0
    print("\n".join(map(str, table("likelihood"))))
    assert main(["system_prompts", "--models", model, *FAST, EXACT]) == 0
    print("\n".join(map(str, table("system_prompts"))))


def test_likelihood_tuned(workshop: Path) -> None:
    tiny_papers.steer_wrk(workshop / "data/steer_wrk")
    models = [tiny_papers.llama2(workshop / name, False, seed) for seed, name in enumerate(("base", "tuned"))]
    assert main(["likelihood_tuned", "--models", *models, *FAST, EXACT]) == 0
    print("\n".join(map(str, table("likelihood_tuned"))))


def test_refusal_direction(workshop: Path) -> None:
    tiny_papers.prompts(workshop / "data")
    model = tiny_papers.llama2(workshop / "Llama-2-7b-chat-hf")
    assert main(["refusal_direction", "--models", model, *FAST, EXACT]) == 0
    print("\n".join(map(str, table("refusal_direction"))))


def test_mera(workshop: Path) -> None:
    tiny_papers.tasks(workshop / "data")
    model = tiny_papers.qwen2(workshop / "Qwen2.5-3B")
    sizes = [f"--data.init_args.{part}={n}" for part, n in (("train", 30), ("calibration", 10), ("test", 10))]
    assert main(["mera", "--models", model, "--only", "sms_spam", "last", *FAST, *sizes]) == 0
    print("\n".join(map(str, table("mera"))))
