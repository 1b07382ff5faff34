"""Re-weightings of rows as tensors, for tests of measures that take them."""

import torch
from torch import Tensor

from lightning_steer.statistics import jackknife, resampling


def bootstrap_weights(n: int, resamples: int, seed: int = 0, cluster: Tensor | None = None) -> Tensor:
    groups = None if cluster is None else cluster.numpy()
    return torch.from_numpy(resampling.bootstrap_weights(n, resamples, seed, groups))


def leave_one_out(cluster: Tensor) -> Tensor:
    return torch.from_numpy(jackknife.leave_one_out(cluster.numpy()))
