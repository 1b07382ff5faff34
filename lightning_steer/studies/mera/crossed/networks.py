"""Small residual networks that learn a world in seconds, read before their last block unless told otherwise.

Three blocks ``h + W2 gelu(W1 norm(h))`` on one state for each row, a norm and a head. This models one token of a
decoder whose context is already in its state. There is no attention and no other token.
"""

import io
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_steer import checkpoint
from lightning_steer.files import write
from lightning_steer.studies.mera.crossed.worlds import FEATURES, LABELS, World, draw

BLOCKS, HIDDEN, STEPS, BATCH, RATE = 3, 128, 600, 512, 3e-3
ABOVE = 1
"""Blocks above the state that the declared designs read and steer."""


class Network(nn.Module):
    """A residual network that answers the rows of a world.

    Args:
        width: width of the state.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(FEATURES, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.RMSNorm(width), nn.Linear(width, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, width))
            for _ in range(BLOCKS)
        )
        self.norm, self.head = nn.RMSNorm(width), nn.Linear(width, LABELS)

    def read(self, x: Tensor, above: int = ABOVE) -> Tensor:
        """Return the state ``[n, width]`` with ``above`` blocks still to come, which is the one that is steered."""
        h = self.embed(x)
        for block in self.blocks[: BLOCKS - above]:
            h = h + block(h)
        return h

    def answer(self, h: Tensor, above: int = ABOVE) -> Tensor:
        """Return logits ``[..., labels]`` from states ``[..., width]`` with ``above`` blocks still to come."""
        for block in self.blocks[BLOCKS - above :]:
            h = h + block(h)
        return self.head(self.norm(h))


class Trained(NamedTuple):
    """A network and its distance from the planted answers."""

    network: Network
    gap: float
    """Mean KL of its answers from the planted ones, nats, on 2,000 new rows."""


def train(world: World, seed: int, steps: int = STEPS) -> Trained:
    """Train a network on fresh rows with equally frequent labels; the seed draws its weights and its rows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(world.width)
    generator = torch.Generator().manual_seed(1_000_000 + seed)
    optimiser = torch.optim.AdamW(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    for _ in range(steps):
        rows = draw(world, BATCH, generator, 1 / LABELS)
        loss = nn.functional.cross_entropy(network.answer(network.read(rows.x)), rows.p)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    network.requires_grad_(False)
    rows = draw(world, 2000, generator, 1 / LABELS)
    p = rows.p.clamp_min(1e-9)
    gap = (p * (p.log() - network.answer(network.read(rows.x)).log_softmax(-1))).sum(-1).mean()
    return Trained(network, float(gap))


def load(folder: Path, world: World, seed: int, steps: int = STEPS) -> Trained:
    """Return the network of a world and a seed: loaded from its file, or trained and stored."""
    path = folder / f"{world.name.replace(', ', '_').replace(' ', '_')}-{seed}-{steps}.pt"
    if path.is_file():
        stored = checkpoint.load(path)
        network = Network(world.width)
        network.load_state_dict(stored["weights"])
        return Trained(network.requires_grad_(False), stored["gap"])
    trained = train(world, seed, steps)
    stored = io.BytesIO()
    torch.save({"weights": trained.network.state_dict(), "gap": trained.gap}, stored)
    write(path, stored.getvalue())  # written atomically: another process may be reading
    return trained


def gaps(folder: Path) -> dict[str, float]:
    """Return for every stored network its mean KL from the planted answers in nats."""
    return {path.stem: checkpoint.load(path)["gap"] for path in sorted(folder.glob("*.pt"))}
