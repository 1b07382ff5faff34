"""From the rows of a test to its report: every figure with an interval, beside its baselines."""

import inspect
import math
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from lightning_steer.methods.base import Steering
from lightning_steer.metrics.bypass import bypass
from lightning_steer.metrics.drift import TextDrift, kl_mean, kl_percentile, perplexity_ratio
from lightning_steer.metrics.evaluation import Evaluation
from lightning_steer.metrics.interval import Estimate, bootstrap_weights, estimate_mean, estimate_means, percentile

_UNKNOWN = Estimate(math.nan, math.nan, math.nan, 0)
Figures = dict[str, dict[str, Any]]
"""``{name: {"value", "low", "high", "n"}}``."""


class Summary:
    """Estimates of everything that one test has measured.

    Args:
        tested: columns ``group/measure [n, copies]`` of the held-out rows, with ``moved/site`` and ``truth/site``.
        relearned: the same of the rows that the method learned from.
        evaluation: which measures there are, and which make the table.
        axes: what the copies of the groups ``strength`` and ``pairs`` stand for.
        resamples: bootstrap resamples.
    """

    def __init__(
        self,
        tested: dict[str, Tensor],
        relearned: dict[str, Tensor],
        evaluation: Evaluation,
        axes: Mapping[str, Sequence[float]],
        resamples: int,
    ) -> None:
        self.tested, self.relearned = _on_processor(tested), _on_processor(relearned)
        self.evaluation, self.axes = evaluation, axes
        self.weights, self.relearned_weights = (
            bootstrap_weights(_rows(table), resamples, cluster=table["cluster"])
            for table in (self.tested, self.relearned)
        )

    def estimates(self, table: dict[str, Tensor], weights: Tensor, name: str) -> dict[str, list[Estimate]]:
        """Every figure of a group's candidates."""
        return self.evaluation.estimates(_columns(table, name), table["cluster"], weights)

    def group(self, name: str) -> Figures:
        """The table's measures of a single candidate."""
        found = self.estimates(self.tested, self.weights, name)
        return {m: _plain(found[m][0]) for m in self.evaluation.headline}

    def controls(self) -> dict[str, Figures]:
        """What could be had without steering, on the same rows."""
        given = self.evaluation.controls(_columns(self.tested, "unsteered"), _columns(self.relearned, "unsteered"))
        found = {name: self.evaluation.estimates(c, self.tested["cluster"], self.weights) for name, c in given.items()}
        return {name: {m: _plain(one[m][0]) for m in self.evaluation.headline} for name, one in found.items()}

    def random(self) -> Figures:
        """Mean over the random directions; the interval holds 95 % of the directions, not of the rows."""
        found = {}
        draws = self.estimates(self.tested, self.weights[:2], "random")
        for measure in self.evaluation.headline:
            values = torch.tensor([draw.value for draw in draws[measure]], dtype=torch.float64)
            found[measure] = _plain(Estimate(float(values.mean()), *percentile(values), len(values)))
        return found

    def curve(self, name: str, table: dict[str, Tensor], weights: Tensor) -> dict[str, Any]:
        """Every measure along an axis: ``{"x": [...], measure: {"value": [...], "low": [...], "high": [...]}}``."""
        curve: dict[str, Any] = {"x": list(self.axes[name])}
        points = self.estimates(table, weights, name)
        for measure in self.evaluation.headline:
            curve[measure] = {key: [getattr(p, key) for p in points[measure]] for key in ("value", "low", "high")}
        return curve

    def bypass(self) -> dict[str, Any]:
        """By-pass score with a bootstrap interval."""
        names = ("unsteered/gap", "oracle_patch/gap", "wanted_input/gap")
        gaps = [self.tested[name][:, 0].double() for name in names]
        draws = bypass(*(gap * self.weights for gap in gaps))
        return _plain(Estimate(float(bypass(*gaps)), *percentile(draws), len(gaps[0])))

    def cosines(self, sites: Sequence[str]) -> Figures:
        """How well the mean displacement points to the class difference, and each displacement to its own pair's."""
        found, of_class, of_pair, draws = {}, [], [], []
        for site in sites:
            moved, truth = self.tested[f"moved/{site}"].double(), self.tested[f"truth/{site}"].double()
            of_class.append(torch.cosine_similarity(moved.mean(0), truth.mean(0), dim=0))
            draws.append(torch.cosine_similarity(self.weights @ moved, self.weights @ truth, dim=1))
            of_pair.append(torch.cosine_similarity(moved, truth, dim=1))
        value, interval = float(torch.stack(of_class).mean()), percentile(torch.stack(draws).mean(0))
        found["cosine_class"] = _plain(Estimate(value, *interval, _rows(self.tested)))
        found["cosine_pair"] = self._mean(torch.stack(of_pair).mean(0))
        return found

    def profile(self) -> dict[str, dict[str, list[float]]]:
        """Off-target drift of every attribute, ``{measure: {"value": [k], ...}}``; NaN at the targets."""
        found = {}
        for name, column in self.tested.items():
            if name.startswith("profile/"):
                means = estimate_means(column.nan_to_num(), self.weights)
                meant = column.isnan().any(0).tolist()
                points = [_UNKNOWN if left else point for left, point in zip(meant, means, strict=True)]
                found[name.removeprefix("profile/")] = {
                    key: [getattr(p, key) for p in points] for key in ("value", "low", "high")
                }
        return found

    def edited(self, sites: Sequence[str]) -> dict[str, Any]:
        """Share of rows that the method moved at all, at any site."""
        moved = torch.stack([self.tested[f"moved/{site}"].abs().amax(1) > 0 for site in sites]).any(0)
        return self._mean(moved)

    def report(self, choice: Sequence[float], reason: str, sites: Sequence[str]) -> dict[str, Any]:
        """All of it, as plain numbers."""
        strength, low, high, rows, bound = choice
        steered = self.estimates(self.tested, self.weights, "steered")
        patched = any(name.startswith("oracle_patch/") for name in self.tested)
        metrics = {
            **{m: _plain(steered[m][0]) for m in (*self.evaluation.headline, *self.evaluation.also)},
            "strength": _plain(Estimate(strength, low, high, int(rows))),
            "edited": self.edited(sites),
            **({"bypass": self.bypass(), **self.cosines(sites)} if patched else {}),
        }
        if not math.isnan(bound):
            metrics["certified_bound"] = _plain(Estimate(bound, bound, float("nan"), int(rows)))
        groups = ("unsteered", "site_mean", *(["oracle_patch"] if patched else []))
        baselines = {name: self.group(name) for name in groups} | {"random": self.random(), **self.controls()}
        relearned = self.estimates(self.relearned, self.relearned_weights, "steered")
        return {
            "verdict": self.evaluation.verdict(metrics, baselines),
            "choice": reason,
            "warnings": self.evaluation.warnings(metrics, baselines),
            "metrics": metrics,
            "baselines": baselines,
            "training_negatives": {m: _plain(relearned[m][0]) for m in self.evaluation.headline},
            "dose_response": {"measures": list(self.evaluation.shown), "unit": self.evaluation.unit},
            "curves": {
                "strength": self.curve("strength", self.tested, self.weights),
                "strength_on_training_negatives": self.curve("strength", self.relearned, self.relearned_weights),
                **({"pairs": self.curve("pairs", self.tested, self.weights)} if self.axes["pairs"] else {}),
            },
            "profile": self.profile(),
        }

    def _mean(self, column: Tensor) -> dict[str, Any]:
        return _plain(estimate_mean(column, self.weights))


def _on_processor(table: dict[str, Tensor]) -> dict[str, Tensor]:
    """Figures in float64; the clusters, which are names and no figures, as they are."""
    return {name: column.cpu() if name == "cluster" else column.cpu().double() for name, column in table.items()}


def _columns(table: dict[str, Tensor], group: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{group}/"): part for key, part in table.items() if key.startswith(f"{group}/")}


def _rows(table: dict[str, Tensor]) -> int:
    return len(table["cluster"])


def neutral_drift(found: TextDrift, resamples: int) -> tuple[Figures, Figures]:
    """Drift on neutral texts of the first candidate, and over the random directions that follow it.

    The first's intervals are over texts; the directions' hold 95 % of them.
    """
    weights = bootstrap_weights(len(found.base), resamples)
    measures = {
        "neutral_kl": lambda i, w=None: kl_mean(found.kl[i], w),
        "neutral_kl_p95": lambda i, w=None: kl_percentile(found.kl[i], w),
        "perplexity_ratio": lambda i, w=None: perplexity_ratio(found.base, found.steered[i], found.tokens, w),
    }
    own, random = {}, {}
    for name, measure in measures.items():
        interval = percentile(torch.as_tensor(measure(0, weights)))
        own[name] = _plain(Estimate(float(measure(0)), *interval, len(found.base)))
        draws = torch.tensor([float(measure(i)) for i in range(1, len(found.kl))], dtype=torch.float64)
        random[name] = _plain(Estimate(float(draws.mean()), *percentile(draws), len(draws)))
    return own, random


def _plain(estimate: Estimate) -> dict[str, Any]:
    return estimate._asdict()


def identify(experiment: str, task: str, backbone: str, map_: Steering) -> dict[str, Any]:
    """What a report is about, and with which versions it was made."""
    settings = list(inspect.signature(type(map_)).parameters.values())[1:]
    changed = [f"{p.name}={getattr(map_, p.name)!r}" for p in settings if getattr(map_, p.name) != p.default]
    return {
        "experiment": experiment,
        "task": task,
        "backbone": backbone,
        "method": f"{type(map_).__name__}({', '.join(changed)})" if changed else type(map_).__name__,
        "seed": int(os.environ.get("PL_GLOBAL_SEED", "0")),
        "versions": {name: version(name) for name in ("torch", "lightning", "torchmetrics")},
    }
