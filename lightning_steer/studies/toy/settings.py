"""The study's cells: one for each level of each axis of difficulty, and two on the report's network."""

from typing import NamedTuple

from lightning_steer.networks.mlp import Residual


class NetworkKind(NamedTuple):
    """A kind of toy network and its training."""

    attributes: int
    values: int
    width: int
    """Size of the steered layer."""
    hidden: tuple[int, int, int]
    """Sizes of the layers before and after it: first, second, fourth."""
    steps: int
    learning_rate: float = 2e-3
    residual: Residual = "none"
    dimensions: int = 8

    @property
    def name(self) -> str:
        """Name in files and tables."""
        return f"{self.attributes}x{self.values}-w{self.width}-{self.residual}"

    @property
    def widths(self) -> tuple[int, ...]:
        """Layer sizes in order."""
        return (*self.hidden[:2], self.width, self.hidden[2])


class ToyCell(NamedTuple):
    """One level of one axis."""

    axis: str
    level: str
    network: NetworkKind
    targets: int
    """Number of attributes steered together."""

    @property
    def name(self) -> str:
        """Name in files: what the numbers depend on, so that axes share common cells."""
        return f"{self.network.name}-m{self.targets}"


def small(values: int, width: int, steps: int) -> NetworkKind:
    """Return a network of 16 attributes: it trains in seconds, and is as crowded as the report's network."""
    return NetworkKind(16, values, width, (256, 256, 256), steps)


def report(width: int, steps: int, residual: Residual = "none", learning_rate: float = 2e-3) -> NetworkKind:
    """Return the report's network: 60 attributes of 8 values."""
    return NetworkKind(60, 8, width, (512, 512, 512), steps, learning_rate, residual)


W64, W48, W32 = small(8, 64, 1000), small(8, 48, 1500), small(8, 32, 2200)
AXES = (
    ToyCell("density", "2 values per dimension (w 64)", W64, 1),
    ToyCell("density", "2.7 values per dimension (w 48)", W48, 1),
    ToyCell("density", "4 values per dimension (w 32)", W32, 1),
    ToyCell("attributes", "1 attribute (w 48)", W48, 1),
    ToyCell("attributes", "4 attributes (w 48)", W48, 4),
    ToyCell("attributes", "8 attributes (w 48)", W48, 8),
    ToyCell("values", "2 values (w 32)", small(2, 32, 1000), 1),
    ToyCell("values", "8 values (w 32)", W32, 1),
    ToyCell("values", "16 values (w 32)", small(16, 32, 3200), 1),
)
REPORT_NONE = report(256, 1200)
REPORT_PROJECTION = report(256, 250, "projection", 4e-3)
CHECKS = (
    ToyCell("report's network", "w 128, 1 attribute", report(128, 3000), 1),
    ToyCell("report's network", "w 256, 16 attributes", REPORT_NONE, 16),
)
