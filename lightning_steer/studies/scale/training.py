"""Train what does not ship: the large base model, the same tuned, and narrowly tuned models of both sizes."""

from pathlib import Path
from typing import NamedTuple

from lightning_steer.cli import CLI
from lightning_steer.studies.scale.declared import AGAIN, LARGE, NARROW_SEED, SMALL

MODELS = ("base", "tuned", "narrow")
FOLDERS = {"base": "base", "tuned": "tuned", "narrow": f"narrow-{NARROW_SEED}"}
QUICK = ["--data.init_args.steps_per_epoch", "2", "--trainer.max_epochs", "1", "--data.init_args.val_documents", "30"]


class Training(NamedTuple):
    """How a model is trained."""

    config: str
    rate: float | None = None
    """Learning rate, if it is not the configuration's."""
    seed: int | None = None
    """Of weights and documents, if it is not the configuration's."""


TRAININGS = {
    (LARGE, "base"): Training("pocket_large"),
    (LARGE, "tuned"): Training("pocket_tuned", 0.9e-3),
    (LARGE, "narrow"): Training("pocket_narrow", 1.8e-3),
    (SMALL, "narrow"): Training("pocket_narrow"),
    (AGAIN, "base"): Training("pocket", seed=1),
    (AGAIN, "tuned"): Training("pocket_tuned", seed=1),
    (AGAIN, "narrow"): Training("pocket_narrow", seed=1),
}
"""The large models' learning rates are .6 times those of the small ones. The small base and tuned models ship."""


def folder_of(models: Path, model: str) -> Path:
    """Return the folder of a model below that of its size."""
    return models / FOLDERS[model]


def command(models: Path, size: str, model: str, quick: bool) -> list[str]:
    """Return what follows ``python -m lightning_steer`` to train a model; stopped, the same command goes on.

    Raises:
        FileNotFoundError: the model is to be trained outside of ``checkpoints/``, or ships with the project.
    """
    if (size, model) not in TRAININGS:
        raise FileNotFoundError(f"no {model} model in {folder_of(models, model)}: train it with `make pocket`")
    root = Path("checkpoints").resolve()
    if root not in models.resolve().parents:
        raise FileNotFoundError(f"no {model} model in {models}: it can be trained below {root} only")
    config, rate, seed = TRAININGS[size, model]
    words = ["fit", "--config", f"configs/{config}.yaml", "--run", FOLDERS[model]]
    words += ["--experiment", str(models.resolve().relative_to(root))]
    if seed is not None:
        words += ["--seed_everything", str(seed)]
    if seed is not None or model == "narrow":
        words += ["--data.init_args.seed", str(NARROW_SEED if model == "narrow" else seed)]
    if model != "base":
        words += ["--model.init_args.llm", str(folder_of(models, "base"))]
    if rate is not None:
        words += ["--model.init_args.learning_rate", str(rate)]
    return [*words, *(QUICK if quick else [])]


def train(models: Path, size: str, model: str, quick: bool) -> None:
    """Train a model, unless it is there; raise FileNotFoundError as :func:`command` does."""
    if not (folder_of(models, model) / "model.safetensors").is_file():
        CLI(command(models, size, model, quick))
