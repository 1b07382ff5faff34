"""The papers' experiments, each end to end on tiny random models of its families, and what is said where they lack."""

from pathlib import Path

import tiny_papers

from lightning_steer.studies.papers.__main__ import main

FEW = ["--model.init_args.random_draws=2", "--model.init_args.random_curve=1", "--model.init_args.resamples=50"]
FAST = ["--trainer.accelerator=cpu", *FEW]


def test_fidelity_of_the_notebook(workshop: Path) -> None:
    models = [tiny_papers.gemma2(workshop / name) for name in ("gemma-2-2b", "gemma-2-2b-it")]
    tiny_papers.stereoset(workshop / "data/stereoset/dev.json")
    few = ["--data.init_args.per_type=4", "--model.init_args.backbone.init_args.dtype=float32"]
    assert main(["fidelity_notebook", "--models", *models, *FAST, *few]) == 0
    print((workshop / "logs/papers/fidelity_notebook/table.md").read_text())
