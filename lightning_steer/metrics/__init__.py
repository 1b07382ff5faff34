"""One file per metric: pure functions first, then a class that accumulates them over batches."""

from lightning_steer.metrics.anisotropy import Anisotropy
from lightning_steer.metrics.answers import Answers
from lightning_steer.metrics.attributes import AttributeEffect
from lightning_steer.metrics.behaviour_effect import BehaviourEffect
from lightning_steer.metrics.drift import Drift
from lightning_steer.metrics.evaluation import Evaluation
from lightning_steer.metrics.fidelity import Fidelity
from lightning_steer.metrics.likelihood import Likelihood
from lightning_steer.metrics.stereoset import StereoSet
from lightning_steer.metrics.stereoset_effect import StereoSetEffect

__all__ = [
    "Anisotropy",
    "Answers",
    "AttributeEffect",
    "BehaviourEffect",
    "Drift",
    "Evaluation",
    "Fidelity",
    "Likelihood",
    "StereoSet",
    "StereoSetEffect",
]
