"""The networks that we train, and the interface of every steered network."""

from lightning_steer.networks.backbone import Backbone
from lightning_steer.networks.mlp import MLP
from lightning_steer.networks.toy import ToyBackbone

__all__ = ["MLP", "Backbone", "ToyBackbone"]  # what a configuration may name as its backbone
