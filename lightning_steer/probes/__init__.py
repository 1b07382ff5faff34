"""Probes of activations, used by methods: linear probes with their solvers, and sparse autoencoders."""

from lightning_steer.probes.calibrated_probe import LARGEST as LARGEST
from lightning_steer.probes.condition import Condition as Condition
from lightning_steer.probes.error_probe import fit_error_probe as fit_error_probe
from lightning_steer.probes.logistic_regression import logistic as logistic
from lightning_steer.probes.sparse_autoencoder import LEAST as LEAST
from lightning_steer.probes.sparse_autoencoder import encode as encode
from lightning_steer.probes.sparse_autoencoder import no_features as no_features
from lightning_steer.probes.sparse_autoencoder import read_sparse_autoencoder as read_sparse_autoencoder
from lightning_steer.probes.sparse_autoencoder import train_sparse_autoencoder as train_sparse_autoencoder
