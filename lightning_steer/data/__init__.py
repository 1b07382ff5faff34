"""One file per data set; all of them are known to the command line by their bare names."""

from lightning_steer.data.activations import ActivationsDataModule
from lightning_steer.data.behaviours.module import BehaviourDataModule
from lightning_steer.data.mera.module import MERADataModule
from lightning_steer.data.pocket.module import PocketDataModule
from lightning_steer.data.prompts import PromptsDataModule
from lightning_steer.data.stereoset.module import PocketStereoSetDataModule, StereoSetDataModule
from lightning_steer.data.text import TextDataModule
from lightning_steer.data.toy.module import ToyDataModule, ToyLabelDataModule

__all__ = [
    "ActivationsDataModule",
    "BehaviourDataModule",
    "MERADataModule",
    "PocketDataModule",
    "PocketStereoSetDataModule",
    "PromptsDataModule",
    "StereoSetDataModule",
    "TextDataModule",
    "ToyDataModule",
    "ToyLabelDataModule",
]
