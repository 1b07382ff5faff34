"""Networks of one shape side by side: one batched operation trains or evaluates all of them."""

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
    """``(h, x) -> logits``, from the output of a layer to the end; x is what a residual still reads."""

    def __init__(self, network: MLP, layer: int) -> None:
        super().__init__()
        self.network, self.layer = network, layer

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        network = self.network
        stream = network.residual(network.layers[self.layer + 1 :](h), x)
        return network.classifier(network.norm(stream)).unflatten(-1, (network.attributes, network.values))


class Ensemble:
    """N independent networks; every tensor has them in its first dimension.

    Args:
        networks: networks of one architecture.
        layer: the layer whose output is the site.
    """

    def __init__(self, networks: Sequence[MLP], layer: int = 2) -> None:
        self.weights: dict[str, Tensor] = stack_module_state(list(networks))[0]
        skeleton = copy.deepcopy(networks[0]).to("meta")
        self._whole, self._below, self._above = skeleton, Below(skeleton, layer), Above(skeleton, layer)

    def __call__(self, x: Tensor) -> Tensor:
        """``x [N, B, inputs] -> logits [N, B, attributes, values]``."""
        return self._map(self._whole, self.weights, x)

    def below(self, x: Tensor) -> Tensor:
        """``x [N, B, inputs] -> h [N, B, d]``."""
        return self._map(self._below, self._prefixed(), x)

    def above(self, h: Tensor, x: Tensor) -> Tensor:
        """``h [N, B, d], x [N, B, inputs] -> logits [N, B, attributes, values]``."""
        return self._map(self._above, self._prefixed(), h, x)

    def _prefixed(self) -> dict[str, Tensor]:
        return {f"network.{name}": value for name, value in self.weights.items()}

    @staticmethod
    def _map(module: nn.Module, weights: dict[str, Tensor], *inputs: Tensor) -> Tensor:
        return torch.vmap(lambda own, *parts: functional_call(module, own, parts))(weights, *inputs)
