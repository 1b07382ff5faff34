"""The networks we train, and what every network that is steered must answer; and the probes that methods fit."""

from lightning_steer.models.backbone import Backbone
from lightning_steer.models.error_probe import fit_error_probe as fit_error_probe
from lightning_steer.models.linear import logistic as logistic
from lightning_steer.models.mlp import MLP
from lightning_steer.models.sparse_autoencoder import LEAST as LEAST
from lightning_steer.models.sparse_autoencoder import encode as encode
from lightning_steer.models.sparse_autoencoder import no_features as no_features
from lightning_steer.models.sparse_autoencoder import read_sparse_autoencoder as read_sparse_autoencoder
from lightning_steer.models.sparse_autoencoder import train_sparse_autoencoder as train_sparse_autoencoder
from lightning_steer.models.toy import ToyBackbone

__all__ = ["MLP", "Backbone", "ToyBackbone"]  # the networks: what a configuration may name as its backbone
