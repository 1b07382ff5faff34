"""Train what does not ship: the large base model, the same tuned, and narrowly tuned models of both sizes."""

from pathlib import Path

from lightning_steer.cli import CLI
from lightning_steer.studies.scale.declared import LARGE, NARROW_SEED, SMALL

MODELS = ("base", "tuned", "narrow")
FOLDERS = {"base": "base", "tuned": "tuned", "narrow": f"narrow-{NARROW_SEED}"}
QUICK = ["--data.init_args.steps_per_epoch", "2", "--trainer.max_epochs", "1", "--data.init_args.val_documents", "30"]
CONFIGS = {
    (LARGE, "base"): ("pocket_large", None),
    (LARGE, "tuned"): ("pocket_tuned", 0.9e-3),
    (LARGE, "narrow"): ("pocket_narrow", 1.8e-3),
    (SMALL, "narrow"): ("pocket_narrow", None),
}
"""Configuration and, if it is not the configuration's own, the learning rate: .6 times that of the small model."""


def folder_of(models: Path, model: str) -> Path:
    """Return the folder of a model below that of its size."""
    return models / FOLDERS[model]


def command(models: Path, size: str, model: str, quick: bool) -> list[str]:
    """Return what follows ``python -m lightning_steer`` to train a model; stopped, the same command goes on.

    Raises:
        FileNotFoundError: the model is to be trained outside of ``checkpoints/``, or ships with the project.
    """
    if (size, model) not in CONFIGS:
        raise FileNotFoundError(f"no {model} model in {folder_of(models, model)}: train it with `make pocket`")
    root = Path("checkpoints").resolve()
    if root not in models.resolve().parents:
        raise FileNotFoundError(f"no {model} model in {models}: it can be trained below {root} only")
    config, rate = CONFIGS[size, model]
    words = ["fit", "--config", f"configs/{config}.yaml", "--run", FOLDERS[model]]
    words += ["--experiment", str(models.resolve().relative_to(root))]
    if model == "narrow":
        words += ["--data.init_args.seed", str(NARROW_SEED)]
    if model != "base":
        words += ["--model.init_args.llm", str(folder_of(models, "base"))]
    if rate is not None:
        words += ["--model.init_args.learning_rate", str(rate)]
    return [*words, *(QUICK if quick else [])]


def train(models: Path, size: str, model: str, quick: bool) -> None:
    """Train a model, unless it is there; raise FileNotFoundError as :func:`command` does."""
    if not (folder_of(models, model) / "model.safetensors").is_file():
        CLI(command(models, size, model, quick))
