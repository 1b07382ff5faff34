"""Tiny networks and a clean working folder. Nothing here reaches the network or writes outside a temporary folder."""

import os
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import lightning as L
import pytest
import torch
from hypothesis import HealthCheck, settings
from transformers import LlamaConfig, LlamaForCausalLM

from lightning_steer.data import ToyLabelDataModule
from lightning_steer.data.pocket.module import vocabulary
from lightning_steer.data.pocket.text import tokenizer
from lightning_steer.modules import ToyClassifier
from lightning_steer.networks import ToyBackbone
from lightning_steer.quiet import hush
from lightning_steer.records import Activations

ROOT = Path(__file__).parent.parent
WORLD = {"attributes": 6, "values": 4, "dimensions": 4}
WIDTHS = (32, 32, 16, 32)


hush()
settings.register_profile("no clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no clock")
torch.set_num_threads(1)  # two workers share two cores; and nothing may depend on the number of threads


def quiet_trainer(**settings: object) -> L.Trainer:
    """A trainer that prints and writes nothing."""
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
        "max_epochs": 1,
    }
    return L.Trainer(**{**defaults, **settings})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def toy_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of a tiny toy network for each kind of residual."""
    folder, paths = tmp_path_factory.mktemp("toy"), {}
    for residual in ("none", "projection", "pad", "concat"):
        L.seed_everything(0, verbose=False)
        classifier = ToyClassifier(widths=WIDTHS, residual=residual, learning_rate=5e-3)
        trainer = quiet_trainer(max_epochs=1)
        trainer.fit(classifier, ToyLabelDataModule(batch_size=64, steps_per_epoch=300, test_rows=200, **WORLD))
        paths[residual] = folder / f"{residual}.ckpt"
        trainer.save_checkpoint(paths[residual])
    return paths


@pytest.fixture
def toy_backbone(toy_checkpoints: dict[str, Path]) -> ToyBackbone:
    """The tiny network without a by-pass, steered behind its third layer."""
    backbone = ToyBackbone(str(toy_checkpoints["none"]))
    backbone.load()
    return backbone


def rows(seed: int = 0, n: int = 60, d: int = 8, stack: tuple[int, ...] = (), paired: bool = True) -> Activations:
    """Correlated rows of three classes; positive ones read value 0, negative ones 1 or 2."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=g) / d**0.5 + torch.eye(d)
    offsets = 1.5 * torch.randn(3, d, generator=g)
    value = torch.cat([torch.randint(1, 3, (*stack, n), generator=g), torch.zeros(*stack, n, dtype=torch.int64)], -1)
    h = torch.randn(*stack, n, d, generator=g) @ mix
    other = h + 0.3 * torch.randn(h.shape, generator=g) if paired else torch.randn(h.shape, generator=g) @ mix
    h = torch.cat([h, 0.8 * other], -2) + offsets[value]
    sensitivity = torch.randn(*stack, 2 * n, 3, d, generator=g)
    error = torch.cat([torch.ones(n), torch.zeros(n)])
    return Activations(h, error, value.unsqueeze(-1), paired, sensitivity=sensitivity)


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with the project's configs, entered for the time of the test."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def pocket_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random decoder that reads the pocket language, as a local folder."""
    folder, words = tmp_path_factory.mktemp("decoder"), tokenizer(vocabulary())
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 5, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(words), **size)).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
