"""One file per LightningModule; the command line knows all of them by their class names."""

from lightning_steer.modules.language_model import LanguageModel
from lightning_steer.modules.probe import ErrorProbe
from lightning_steer.modules.recorder import ActivationRecorder
from lightning_steer.modules.responses import Responses
from lightning_steer.modules.sparse_autoencoder import SparseCoder
from lightning_steer.modules.steering import SteeringAdaptor
from lightning_steer.modules.toy import ToyClassifier

__all__ = [
    "ActivationRecorder",
    "ErrorProbe",
    "LanguageModel",
    "Responses",
    "SparseCoder",
    "SteeringAdaptor",
    "ToyClassifier",
]
