"""One file per steering method; the laws in ``tests/test_methods.py`` test every method listed here."""

from lightning_steer.methods.ablation import Ablation
from lightning_steer.methods.ace import ACE
from lightning_steer.methods.angular import Angular
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.methods.clamp import Clamp
from lightning_steer.methods.composed import Composed
from lightning_steer.methods.conceptor import Conceptor
from lightning_steer.methods.contrastive import Contrastive
from lightning_steer.methods.contrastive_mera import ContrastiveMERA
from lightning_steer.methods.dual_steering import DualSteering
from lightning_steer.methods.gated import Gated
from lightning_steer.methods.head_steering import HeadSteering
from lightning_steer.methods.identity import Identity
from lightning_steer.methods.k_steering import KSteering
from lightning_steer.methods.leace import LEACE
from lightning_steer.methods.learned_vector import LearnedVector
from lightning_steer.methods.logistic import Logistic
from lightning_steer.methods.logistic_mera import LogisticMERA
from lightning_steer.methods.loreft import LoReFT
from lightning_steer.methods.mean_difference import MeanDifference
from lightning_steer.methods.mera import MERA
from lightning_steer.methods.midsteer import MidSteer
from lightning_steer.methods.pca_direction import PCADirection
from lightning_steer.methods.probe_additive import ProbeAdditive
from lightning_steer.methods.random_direction import RandomDirection
from lightning_steer.methods.ridge import Ridge
from lightning_steer.methods.sae_mera import SAEMERA
from lightning_steer.methods.transport import GaussianTransport
from lightning_steer.numbers import ranged
from lightning_steer.strength import readable

__all__ = [
    "ACE",
    "LEACE",
    "MERA",
    "SAEMERA",
    "Ablation",
    "Angular",
    "Clamp",
    "Composed",
    "Conceptor",
    "Contrastive",
    "ContrastiveMERA",
    "DualSteering",
    "Gated",
    "GaussianTransport",
    "HeadSteering",
    "Identity",
    "KSteering",
    "LearnedVector",
    "LoReFT",
    "Logistic",
    "LogisticMERA",
    "MeanDifference",
    "MidSteer",
    "PCADirection",
    "ProbeAdditive",
    "RandomDirection",
    "Ridge",
    "SteeringMethod",
]

for _method in (globals()[name] for name in __all__):
    if "__init__" in vars(_method):  # here, so that every new method gets it
        _method.__init__ = ranged(_method.__init__)
    if "forward" in vars(_method):
        _method.forward = readable(_method.forward)
