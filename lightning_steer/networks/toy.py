"""The toy network as a backbone: a frozen, trained checkpoint with the steered sites."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_steer import checkpoint
from lightning_steer.errors import UserError
from lightning_steer.hooks import Edit, capture, edit
from lightning_steer.networks.backbone import Backbone
from lightning_steer.networks.gradients import weighted_gradients
from lightning_steer.networks.mlp import MLP


class ToyBackbone(Backbone):
    """The network of a toy checkpoint.

    Args:
        checkpoint: a file written by ``fit --config configs/toy.yaml``.
        site: the submodule whose output is steered: ``layers.2`` is the third layer after its activation,
            ``layers.2.linear`` the same before it.
    """

    def __init__(self, checkpoint: str, site: str = "layers.2") -> None:
        super().__init__()
        if not site:
            raise UserError("site '' names no submodule: give one such as layers.2")
        self.checkpoint, self.sites, self.name = checkpoint, [site], f"{checkpoint} at {site}"
        self.network: MLP | None = None
        self.world: dict[str, Any] = {}

    def load(self) -> None:
        if self.network is not None:
            return
        path = Path(self.checkpoint)
        if not path.is_file():
            raise FileNotFoundError(
                f"no toy network at {path}: train one with `python -m lightning_steer fit --config configs/toy.yaml`"
            )
        try:
            saved = checkpoint.load(path)
            with torch.device("meta"):  # allocates nothing, whatever sizes a file claims
                network = MLP(**saved["network"])
            weights = {name.removeprefix("network."): value for name, value in saved["state_dict"].items()}
            network.load_state_dict(weights, assign=True)
            self.world = dict(saved["world"])
        except Exception as error:  # any error of torch, zipfile or the network on a bad file
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise UserError(f"{path} is not a readable checkpoint of a toy network ({reason})") from error
        self.network = network.requires_grad_(False).eval()

    def _loaded(self) -> MLP:
        if self.network is None:
            raise RuntimeError("the toy network is not loaded yet: call load() first")
        return self.network

    def check(self, data: Any) -> None:
        """Raise ValueError for data of another world, which the network would silently misread."""
        self.check_precision(data)
        self.load()
        if data.world.identity != self.world:
            different = [key for key, value in data.world.identity.items() if self.world.get(key) != value]
            trained, requested = (
                ", ".join(f"{key} {world.get(key)}" for key in different) for world in (self.world, data.world.identity)
            )
            raise UserError(f"{self.checkpoint} was trained on data with {trained}, not {requested}")

    def width(self, site: str) -> int:
        network = self._loaded()
        with capture(network, [site]) as seen, torch.no_grad():
            network(torch.zeros(1, network.inputs))
        return seen[site].shape[-1]

    def activations(self, inputs: Tensor) -> dict[str, Tensor]:
        with capture(self._loaded(), self.sites) as seen:
            self._loaded()(inputs)
        return seen

    def observe(self, inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with capture(self._loaded(), self.sites) as seen:
            logits = self._loaded()(inputs)
        return _log_softmax(logits), seen

    def sensitivity(self, inputs: Tensor, prompts: bool = False) -> dict[str, Tensor]:
        with torch.inference_mode(False), torch.enable_grad():
            site = self.sites[0]
            shift = inputs.new_zeros(len(inputs), self.width(site), requires_grad=True)
            with edit(self._loaded(), {site: lambda h: h + shift}):
                logp = self._loaded()(inputs.clone()).log_softmax(-1)
            return {site: weighted_gradients(logp.flatten(1), [shift])[0]}  # outcomes: all values of all attributes

    def scores(self, inputs: Tensor, edits: Mapping[str, Edit] | None = None, copies: int = 1) -> Tensor:
        def with_copies(function: Edit) -> Edit:
            return lambda h: function(h if h.dim() > 2 else h.expand(copies, *h.shape))

        with edit(self._loaded(), {site: with_copies(function) for site, function in (edits or {}).items()}):
            logits = self._loaded()(inputs)
        return _log_softmax(logits if edits else logits.expand(copies, *logits.shape))


def _log_softmax(logits: Tensor) -> Tensor:
    """Compute log_softmax over the last dimension; for few values transposing makes it several times faster."""
    return logits.mT.log_softmax(-2).mT
