"""The law of half effect: how strong a mean difference must be before the target reads the wanted value.

With K equiprobable values in orthogonal directions, and a share rho of the evidence by-passing the site, the wanted
value wins for ``strength > (K - 1) / K / (1 - rho)``. Where the site is crowded the directions are not orthogonal; the
geometric form ``1/2 / alpha / (1 - rho)``, with ``alpha = mean_k <v, D_k> / |D_k|^2`` and D_k the mean shift from
value k, needs no such assumption (in the ideal case alpha = K / (2 (K - 1)), and both agree).
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_steer.metrics.bypass import bypass
from lightning_steer.selection.strength import crossing
from lightning_steer.studies.toy import adapters, pools
from lightning_steer.studies.toy.networks import clean_accuracy, trained
from lightning_steer.studies.toy.settings import ToyCell

STRENGTHS = torch.cat([torch.arange(0.05, 2.0, 0.05), torch.arange(2.0, 8.0, 0.25), torch.arange(8.0, 40.1, 1.0)])
FIT_ROWS, TEST_ROWS = 2048, 300


@torch.no_grad()
def measure(cell: ToyCell, networks: int, sets: int, folder: Path) -> dict[str, Any]:
    """Measure by-pass score, alpha, and the strength at which half the targets read the wanted value, ``[N][T]`` each.

    The strength is that of the mean difference of 2,048 pairs; infinite where half effect is not reached at 40.
    """
    ensemble = trained(cell.network, networks, folder)
    fit, test = (
        pools.draw(cell, ensemble, networks, sets, split, rows)
        for split, rows in ((pools.FIT, FIT_ROWS), (pools.TEST, TEST_ROWS))
    )
    v = (fit.h_positive - fit.h).mean(2)
    shares = []
    for strengths in STRENGTHS.split(16):
        moved = test.h.unsqueeze(2) + strengths[:, None, None] * v[:, :, None, None]
        shares.append(adapters.judge(adapters.read(ensemble, moved, test), test)[1].mean(-1))
    share = torch.cat(shares, -1)
    half = [[crossing(STRENGTHS.tolist(), curve) for curve in curves] for curves in share.tolist()]
    rho = bypass(
        *(
            gap(ensemble, h, x, test)
            for h, x in ((test.h, test.x), (test.h_positive, test.x), (test.h_positive, test.x_positive))
        )
    )
    accuracy, exact = clean_accuracy(ensemble, cell.network, networks)
    return {
        "half": half,
        "bypass": rho.tolist(),
        "alpha": alignment(fit, v).tolist(),
        "clean_accuracy": accuracy.tolist(),
        "clean_exact": exact.tolist(),
    }


def gap(ensemble: pools.Ensemble, h: Tensor, x: Tensor, pool: pools.Pool) -> Tensor:
    """Return log p(positive) - log p(old) of the target, ``[N, T, R]``."""
    scores = adapters.read(ensemble, h.unsqueeze(2), pool._replace(x=x)).squeeze(2)
    index = pool.targets.unsqueeze(2).expand(-1, -1, h.shape[2], -1)
    at_target = scores.gather(3, index.unsqueeze(-1).expand(-1, -1, -1, -1, scores.shape[-1]))
    positive, old = (at_target.gather(-1, y.gather(-1, index).unsqueeze(-1)) for y in (pool.y_positive, pool.y))
    return (positive - old).flatten(3).mean(-1)


def alignment(fit: pools.Pool, v: Tensor) -> Tensor:
    """Return ``alpha [N, T] = mean_k <v, D_k> / |D_k|^2`` over the old values k of a single target."""
    old = fit.y.gather(-1, fit.targets.unsqueeze(2).expand(-1, -1, fit.y.shape[2], -1)).squeeze(-1)
    member = torch.nn.functional.one_hot(old).to(fit.h.dtype)
    shifts = member.mT @ (fit.h_positive - fit.h) / member.sum(2).unsqueeze(-1).clamp_min(1)
    seen = member.sum(2) > 0
    ratio = (shifts * v.unsqueeze(2)).sum(-1) / shifts.square().sum(-1).clamp_min(1e-12)
    return (ratio * seen).sum(-1) / seen.sum(-1)
