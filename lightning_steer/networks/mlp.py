"""The toy network: a multilayer perceptron that reads all attributes of a sample, with or without a by-pass.

Layers of 512-512-256-512 with GELU, a LayerNorm, and one linear classifier for every attribute (Krasheninnikov &
Krueger 2024; the student report adds the residual from the input to the LayerNorm).
"""

from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_steer.errors import UserError

Residual = Literal["none", "projection", "pad", "concat"]


class Projection(nn.Module):
    """Add a learned linear projection of the input to the last layer's output."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.linear = nn.Linear(inputs, width, bias=False)

    def forward(self, stream: Tensor, x: Tensor) -> Tensor:
        return stream + self.linear(x)


class Pad(nn.Module):
    """Add the input, padded with zeros or cut to the width of the last layer."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.missing = width - inputs

    def forward(self, stream: Tensor, x: Tensor) -> Tensor:
        return stream + nn.functional.pad(x, (0, self.missing))


class Concat(nn.Module):
    """Concatenate the input with the last layer's output."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.width = inputs + width

    def forward(self, stream: Tensor, x: Tensor) -> Tensor:
        return torch.cat([stream, x.expand(*stream.shape[:-1], -1)], -1)


class NoResidual(nn.Module):
    """Return the last layer's output without the input."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, stream: Tensor, x: Tensor) -> Tensor:
        return stream


RESIDUALS = {"none": NoResidual, "projection": Projection, "pad": Pad, "concat": Concat}


class MLP(nn.Module):
    """``x [*, inputs] -> logits [*, attributes, values]``; submodules are the sites that can be steered.

    ``layers.2`` is the third layer's output after its activation, ``layers.2.linear`` the same before it.

    Args:
        inputs: size of a sample.
        attributes: number of attributes.
        values: number of values of each attribute.
        widths: sizes of the layers.
        residual: how the input by-passes the layers to the LayerNorm: ``none``, a learned ``projection``, padded with
            zeros (``pad``), or concatenated (``concat``).
    """

    def __init__(
        self,
        inputs: int = 480,
        attributes: int = 60,
        values: int = 8,
        widths: tuple[int, ...] = (512, 512, 256, 512),
        residual: Residual = "projection",
    ) -> None:
        super().__init__()
        if residual not in RESIDUALS:
            raise UserError(f"residual is one of {', '.join(RESIDUALS)}, not {residual!r}")
        self.inputs, self.attributes, self.values = inputs, attributes, values
        sizes = zip((inputs, *widths[:-1]), widths, strict=True)
        self.layers = nn.Sequential(
            *(nn.Sequential(OrderedDict(linear=nn.Linear(a, b), activation=nn.GELU())) for a, b in sizes)
        )
        self.residual = RESIDUALS[residual](inputs, widths[-1])
        self.norm = nn.LayerNorm(self.residual.width)
        self.classifier = nn.Linear(self.residual.width, attributes * values)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.classifier(self.norm(self.residual(self.layers(x), x)))
        return logits.unflatten(-1, (self.attributes, self.values))
