"""The toy laboratory's data: attributes with known values, drawn on the fly.

Every (attribute, value) owns an anchor drawn once from a normal distribution; a sample lays the anchors of its
values side by side and adds noise (Krasheninnikov & Krueger 2024, section 3). Batch j of a split depends on nothing
but the seeds and j, so any number of processes on any device draw the same data.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from lightning_steer import numbers
from lightning_steer.numbers import ranged

ROWS = 1
"""Goes up whenever the same settings would give other rows: rows are told apart by their settings."""


class ToyWorld:
    """What is fixed before any sample is drawn: the attributes, their values and the anchors.

    Args:
        attributes: how many attributes a sample has.
        values: how many values each attribute can take.
        dimensions: input dimensions of an anchor that has them to itself.
        noise: standard deviation of the normal noise on every input dimension.
        density: superposition: (attribute, value) combinations for each input dimension. All anchors then share
            ``attributes * values / density`` dimensions and are added up; null gives every attribute its own.
        continuous: an attribute's position moves along the line through its anchors instead of sitting on one; its
            value is the nearest anchor, and a tenth of a step on both sides of each border stays free.
        world_seed: draws the anchors.
    """

    @ranged
    def __init__(
        self,
        attributes: int = 60,
        values: int = 8,
        dimensions: int = 8,
        noise: float = 0.1,
        density: float | None = None,
        continuous: bool = False,
        world_seed: int = 0,
    ) -> None:
        if attributes < 2 or values < 2 or dimensions < 1:
            raise ValueError(
                "a toy world needs at least 2 attributes, 2 values and 1 dimension, "
                f"not attributes={attributes}, values={values}, dimensions={dimensions}"
            )
        if not noise >= 0:
            raise ValueError(f"noise is a standard deviation and cannot be negative: {noise}")
        if density is not None and not 0 < density <= attributes * values:
            raise ValueError(f"density must lie in (0, attributes * values = {attributes * values}], not {density}")
        self.attributes, self.values, self.noise, self.continuous = attributes, values, noise, continuous
        self.shared = density is not None
        size = dimensions if density is None else round(attributes * values / density)
        self.inputs = size if self.shared else attributes * dimensions
        numbers.fits(f"{attributes} attributes of {values} values on {size} dimensions", attributes * values * size, 4)
        # shared or not, an anchor's expected squared length is `dimensions`
        scale = (dimensions / size) ** 0.5
        self.anchors = scale * torch.randn(attributes, values, size, generator=generator(world_seed))
        self.identity = {
            "attributes": attributes,
            "values": values,
            "dimensions": dimensions,
            "density": density,
            "continuous": continuous,
            "world_seed": world_seed,
        }
        """What a network trained in this world must agree on; the noise may differ."""
        self.recipe = [ROWS, self.identity, noise]

    def check_rows(self, **counts: int) -> None:
        """Raise ValueError naming the first of these numbers of samples that memory cannot hold."""
        for name, rows in counts.items():
            numbers.fits(f"{name} {rows} of {self.inputs} numbers each", rows, 32 * self.inputs)  # with copies

    def draw(self, rows: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Values ``[rows, attributes]`` int64, and where they lie: as long as 0 off the anchor, up to .4 of a step."""
        values = torch.randint(self.values, (rows, self.attributes), generator=generator)
        offsets = torch.zeros(rows, self.attributes)
        if self.continuous:
            offsets = 0.8 * torch.rand(rows, self.attributes, generator=generator) - 0.4
        return values, offsets

    def render(self, values: Tensor, offsets: Tensor, generator: Generator) -> Tensor:
        """Samples ``[rows, inputs]`` with these values, with fresh noise."""
        every = torch.arange(self.attributes)
        points = self.anchors[every, values]
        if self.continuous:
            towards = (values + offsets.sign().long()).clamp(0, self.values - 1)
            points = torch.lerp(points, self.anchors[every, towards], offsets.abs().unsqueeze(-1))
        x = points.sum(1) if self.shared else points.flatten(1)
        return x + self.noise * torch.randn(x.shape, generator=generator)


class Labelled(NamedTuple):
    """Samples for training the network to read every attribute."""

    x: Tensor
    """``[n, inputs]``."""
    y: Tensor
    """``[n, attributes]`` int64 values."""


class Pairs(NamedTuple):
    """Samples without the wanted value, their positives, and what the steered network should read."""

    row: Tensor
    """``[n]`` position in the split, the same whatever the batches and ranks."""
    x: Tensor
    """``[n, inputs]`` negatives: every target attribute reads something else."""
    y: Tensor
    """``[n, attributes]`` their values."""
    x_wanted: Tensor
    """``[n, inputs]`` positives: the target attributes read the wanted value."""
    y_wanted: Tensor
    """``[n, attributes]`` the negatives' values with the target attributes set."""

    @property
    def unwanted(self) -> Tensor:
        """What a method learns to move away from."""
        return self.x

    @property
    def wanted(self) -> Tensor:
        """What it learns to move towards."""
        return self.x_wanted

    @property
    def values(self) -> Tensor:
        """``[n, 2, attributes]`` values of both."""
        return torch.stack([self.y, self.y_wanted], 1)


def generator(*seeds: int) -> Generator:
    """A generator of its own for every tuple of seeds, the same everywhere."""
    return Generator().manual_seed(int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0] >> 1))


class LabelledSplit(Dataset[Labelled]):
    """Item j is a batch of labelled samples; past ``rows`` the stream goes on without end."""

    def __init__(self, world: ToyWorld, rows: int, batch_size: int, seeds: tuple[int, int], share: slice) -> None:
        self.world, self.rows, self.batch_size, self.seeds, self.share = world, rows, batch_size, seeds, share

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def __getitem__(self, j: int) -> Labelled:
        random = generator(*self.seeds, j)
        values, offsets = self.world.draw(self.batch_size, random)
        x = self.world.render(values, offsets, random)
        n = min(self.batch_size, self.rows - j * self.batch_size) if j < len(self) else self.batch_size
        return Labelled(x[:n][self.share], values[:n][self.share])


class PairsSplit(Dataset[Pairs]):
    """Item j is a batch of pairs; the first n pairs are the same however many there are."""

    def __init__(
        self,
        world: ToyWorld,
        rows: int,
        batch_size: int,
        seeds: tuple[int, int],
        share: slice,
        target: list[int],
        target_value: int,
        paired: bool,
    ) -> None:
        self.world, self.rows, self.batch_size, self.seeds, self.share = world, rows, batch_size, seeds, share
        self.target, self.target_value, self.paired = target, target_value, paired

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def __getitem__(self, j: int) -> Pairs:
        random = generator(*self.seeds, j)
        values, offsets = self.world.draw(self.batch_size, random)
        others = torch.randint(1, self.world.values, (self.batch_size, len(self.target)), generator=random)
        values[:, self.target] = (self.target_value + others) % self.world.values
        y_wanted = values.clone()
        y_wanted[:, self.target] = self.target_value
        positives, positions = self.world.draw(self.batch_size, random)
        positives[:, self.target] = self.target_value
        if self.paired:
            fresh = positions[:, self.target]
            positives, positions = y_wanted, offsets.clone()
            positions[:, self.target] = fresh
        x = self.world.render(values, offsets, random)
        x_wanted = self.world.render(positives, positions, random)
        row = torch.arange(self.batch_size) + j * self.batch_size
        n = min(self.batch_size, self.rows - j * self.batch_size)
        return Pairs(*(column[:n][self.share] for column in (row, x, values, x_wanted, y_wanted)))
