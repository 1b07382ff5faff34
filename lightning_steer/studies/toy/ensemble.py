"""Networks of one shape, trained or evaluated together in batched operations."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from lightning_steer.networks.mlp import MLP


class Below(nn.Module):
    """``x -> h``, from the input to the output of a layer."""

    def __init__(self, network: MLP, layer: int) -> None:
        super().__init__()
        self.network, self.layer = network, layer

    def forward(self, x: Tensor) -> Tensor:
        return self.network.layers[: self.layer + 1](x)


class Above(nn.Module):
    """``(h, x) -> logits``, from the output of a layer to the end; x is the input for a residual."""

    def __init__(self, network: MLP, layer: int) -> None:
        super().__init__()
        self.network, self.layer = network, layer

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        network = self.network
        stream = network.residual(network.layers[self.layer + 1 :](h), x)
        return network.classifier(network.norm(stream)).unflatten(-1, (network.attributes, network.values))


class Ensemble:
    """N independent networks, the first dimension of every tensor.

    Args:
        networks: networks of one architecture.
        layer: the layer whose output is the site.
    """

    def __init__(self, networks: Sequence[MLP], layer: int = 2) -> None:
        self.weights: dict[str, Tensor] = stack_module_state(list(networks))[0]
        template = copy.deepcopy(networks[0]).to("meta")
        self._whole, self._below, self._above = template, Below(template, layer), Above(template, layer)

    def __call__(self, x: Tensor) -> Tensor:
        """Map ``x [N, B, inputs]`` to ``logits [N, B, attributes, values]``."""
        return self._map(self._whole, self.weights, x)

    def below(self, x: Tensor) -> Tensor:
        """Map ``x [N, B, inputs]`` to ``h [N, B, d]``."""
        return self._map(self._below, self._prefixed(), x)

    def above(self, h: Tensor, x: Tensor) -> Tensor:
        """Map ``h [N, B, d]``, ``x [N, B, inputs]`` to ``logits [N, B, attributes, values]``."""
        return self._map(self._above, self._prefixed(), h, x)

    def _prefixed(self) -> dict[str, Tensor]:
        return {f"network.{name}": value for name, value in self.weights.items()}

    @staticmethod
    def _map(module: nn.Module, weights: dict[str, Tensor], *inputs: Tensor) -> Tensor:
        return torch.vmap(lambda w, *x: functional_call(module, w, x))(weights, *inputs)
