"""The toy laboratory's data: attributes with known values, drawn on the fly.

Every (attribute, value) has an anchor drawn once from a normal distribution; a sample concatenates the anchors of its
values and adds noise (Krasheninnikov & Krueger 2024, section 3). Batch j of a split depends only on the seeds and j, so
any number of processes on any device draw the same data.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from lightning_steer import numbers
from lightning_steer.errors import UserError
from lightning_steer.numbers import ranged

ROWS = 1
"""Version of the generated rows: raise it whenever the same settings give other rows."""


class ToyWorld:
    """The fixed part of the data: the attributes, their values and the anchors.

    Args:
        attributes: number of attributes of a sample.
        values: number of values of each attribute.
        dimensions: input dimensions of an anchor without superposition.
        noise: standard deviation of the normal noise on every input dimension.
        density: superposition: (attribute, value) combinations per input dimension. All anchors then share
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
            raise UserError(
                "a toy world needs at least 2 attributes, 2 values and 1 dimension, "
                f"not attributes={attributes}, values={values}, dimensions={dimensions}"
            )
        if not noise >= 0:
            raise UserError(f"noise is a standard deviation and cannot be negative: {noise}")
        if density is not None and not 0 < density <= attributes * values:
            raise UserError(f"density must lie in (0, attributes * values = {attributes * values}], not {density}")
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
        """Settings that a network trained in this world depends on; the noise may differ."""
        self.recipe = [ROWS, self.identity, noise]

    def check_rows(self, **counts: int) -> None:
        """Raise ValueError naming the first of these sample counts that does not fit in memory."""
        for name, rows in counts.items():
            numbers.fits(f"{name} {rows} of {self.inputs} numbers each", rows, 32 * self.inputs)  # with copies

    def draw(self, rows: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Draw values ``[rows, attributes]`` int64 and their offsets from the anchors: 0, or up to .4 steps."""
        values = torch.randint(self.values, (rows, self.attributes), generator=generator)
        offsets = torch.zeros(rows, self.attributes)
        if self.continuous:
            offsets = 0.8 * torch.rand(rows, self.attributes, generator=generator) - 0.4
        return values, offsets

    def render(self, values: Tensor, offsets: Tensor, generator: Generator) -> Tensor:
        """Return samples ``[rows, inputs]`` of these values and offsets, with fresh noise."""
        attribute = torch.arange(self.attributes)
        points = self.anchors[attribute, values]
        if self.continuous:
            neighbour = (values + offsets.sign().long()).clamp(0, self.values - 1)
            points = torch.lerp(points, self.anchors[attribute, neighbour], offsets.abs().unsqueeze(-1))
        x = points.sum(1) if self.shared else points.flatten(1)
        return x + self.noise * torch.randn(x.shape, generator=generator)


class ToyLabelledBatch(NamedTuple):
    """Samples for training the network to read every attribute."""

    x: Tensor
    """``[n, inputs]``."""
    y: Tensor
    """``[n, attributes]`` int64 values."""


class ToyPairBatch(NamedTuple):
    """Negatives, which lack the target value, their positives, and the attributes of both."""

    row: Tensor
    """``[n]`` row numbers in the split, independent of batches and processes."""
    x: Tensor
    """``[n, inputs]`` negatives: no target attribute has the target value."""
    y: Tensor
    """``[n, attributes]`` values of the negatives."""
    x_positive: Tensor
    """``[n, inputs]`` positives: the target attributes have the target value."""
    y_positive: Tensor
    """``[n, attributes]`` the negatives' values with the target attributes set to the target value."""

    @property
    def cluster(self) -> Tensor:
        """Return ``[n]``: every row by itself."""
        return self.row

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """Return negatives and positives."""
        return self.x, self.x_positive

    @property
    def moved(self) -> Tensor:
        """Return the negatives."""
        return self.x

    @property
    def known_positive(self) -> Tensor:
        """Return the positives."""
        return self.x_positive

    @property
    def compared_texts(self) -> None:
        """Return None: samples are no texts."""

    @property
    def values(self) -> Tensor:
        """Return ``[n, 2, attributes]`` values of negatives and positives."""
        return torch.stack([self.y, self.y_positive], 1)


def generator(*seeds: int) -> Generator:
    """Return a random generator for a tuple of seeds, the same everywhere."""
    return Generator().manual_seed(int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0] >> 1))


class ToyLabelledSplit(Dataset[ToyLabelledBatch]):
    """Item j is a batch of labelled samples; beyond ``rows`` the stream is endless."""

    def __init__(self, world: ToyWorld, rows: int, batch_size: int, seeds: tuple[int, int], share: slice) -> None:
        self.world, self.rows, self.batch_size, self.seeds, self.share = world, rows, batch_size, seeds, share

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def __getitem__(self, j: int) -> ToyLabelledBatch:
        random = generator(*self.seeds, j)
        values, offsets = self.world.draw(self.batch_size, random)
        x = self.world.render(values, offsets, random)
        n = min(self.batch_size, self.rows - j * self.batch_size) if j < len(self) else self.batch_size
        return ToyLabelledBatch(x[:n][self.share], values[:n][self.share])


class ToyPairSplit(Dataset[ToyPairBatch]):
    """Item j is a batch of pairs; the first n pairs do not depend on the number of rows."""

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

    def __getitem__(self, j: int) -> ToyPairBatch:
        random = generator(*self.seeds, j)
        values, offsets = self.world.draw(self.batch_size, random)
        value_shift = torch.randint(1, self.world.values, (self.batch_size, len(self.target)), generator=random)
        values[:, self.target] = (self.target_value + value_shift) % self.world.values
        y_positive = values.clone()
        y_positive[:, self.target] = self.target_value
        positives, positions = self.world.draw(self.batch_size, random)
        positives[:, self.target] = self.target_value
        if self.paired:
            target_positions = positions[:, self.target]
            positives, positions = y_positive, offsets.clone()
            positions[:, self.target] = target_positions
        x = self.world.render(values, offsets, random)
        x_positive = self.world.render(positives, positions, random)
        row = torch.arange(self.batch_size) + j * self.batch_size
        n = min(self.batch_size, self.rows - j * self.batch_size)
        return ToyPairBatch(*(column[:n][self.share] for column in (row, x, values, x_positive, y_positive)))
