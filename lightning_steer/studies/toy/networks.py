"""Train the study's networks, all seeds of a kind side by side, and store them on disk."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from tqdm.auto import tqdm

from lightning_steer.data.toy.world import ToyLabelledSplit, ToyWorld
from lightning_steer.files import write
from lightning_steer.networks.mlp import MLP
from lightning_steer.studies.toy.ensemble import Ensemble
from lightning_steer.studies.toy.settings import NetworkKind

BATCH, CLEAN_ROWS = 128, 2000


def worlds(kind: NetworkKind, networks: int) -> list[ToyWorld]:
    """Return a world for each network: network i reads world i."""
    return [ToyWorld(kind.attributes, kind.values, kind.dimensions, world_seed=i) for i in range(networks)]


def batch(splits: list[ToyLabelledSplit], j: int) -> tuple[Tensor, Tensor]:
    """Return batch j of every world: ``x [N, B, inputs]``, ``y [N, B, attributes]``."""
    batches = [split[j] for split in splits]
    return torch.stack([labelled.x for labelled in batches]), torch.stack([labelled.y for labelled in batches])


def trained(kind: NetworkKind, networks: int, folder: Path) -> Ensemble:
    """Return the networks of a kind: loaded from ``folder``, or trained with ToyClassifier's recipe if missing."""
    paths = [folder / f"{kind.name}-{kind.steps}" / f"{i}.safetensors" for i in range(networks)]
    toy_worlds, models = worlds(kind, networks), []
    for i, world in enumerate(toy_worlds):
        torch.manual_seed(i)
        models.append(MLP(world.inputs, kind.attributes, kind.values, kind.widths, kind.residual))
    missing = [i for i, path in enumerate(paths) if not path.is_file()]
    if missing:
        ensemble = Ensemble([models[i] for i in missing])
        fit(ensemble, kind, [ToyLabelledSplit(toy_worlds[i], 1, BATCH, (i, 0), slice(None)) for i in missing])
        for position, i in enumerate(missing):
            write(paths[i], save({name: value[position].detach().clone() for name, value in ensemble.weights.items()}))
    for network, path in zip(models, paths, strict=True):
        network.load_state_dict(load_file(path))
    ensemble = Ensemble(models)
    ensemble.weights = {name: value.detach() for name, value in ensemble.weights.items()}
    return ensemble


@torch.enable_grad()
def fit(ensemble: Ensemble, kind: NetworkKind, splits: list[ToyLabelledSplit]) -> None:
    """Optimise all networks at once: AdamW treats each weight by itself, so the networks do not interact."""
    weights = list(ensemble.weights.values())
    optimizer = torch.optim.AdamW(weights, lr=kind.learning_rate, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, kind.learning_rate, kind.steps, pct_start=0.03, cycle_momentum=False
    )
    for j in tqdm(range(kind.steps), desc=f"train {len(splits)} x {kind.name}", leave=False, mininterval=0.5):
        x, y = batch(splits, j + 1)  # past the end of the split: a stream of fresh batches
        loss = nn.functional.cross_entropy(ensemble(x).flatten(0, 1).mT, y.flatten(0, 1)) * len(splits)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def clean_accuracy(ensemble: Ensemble, kind: NetworkKind, networks: int) -> tuple[Tensor, Tensor]:
    """Return mean attribute accuracy and exact match on fresh samples, ``[N]`` each."""
    splits = [
        ToyLabelledSplit(world, CLEAN_ROWS, CLEAN_ROWS, (i, 2), slice(None))
        for i, world in enumerate(worlds(kind, networks))
    ]
    x, y = batch(splits, 0)
    right = (ensemble(x).argmax(-1) == y).float()
    return right.mean((1, 2)), right.prod(-1).mean(1)
