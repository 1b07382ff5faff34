"""One file per metric: pure functions first, then the evaluation of a task, if it is of one."""

from lightning_steer.metrics.answers import Answers
from lightning_steer.metrics.attributes import AttributeEffect
from lightning_steer.metrics.behaviour_effect import BehaviourEffect
from lightning_steer.metrics.evaluation import Evaluation
from lightning_steer.metrics.stereoset_effect import StereoSetEffect

__all__ = [
    "Answers",
    "AttributeEffect",
    "BehaviourEffect",
    "Evaluation",
    "StereoSetEffect",
]
