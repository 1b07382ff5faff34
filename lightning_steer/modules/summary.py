"""From the rows of a test to its report: every figure with an interval, beside its baselines.

One class and one file: the parts of a report are estimated from the same two tables of rows.
"""

import inspect
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lightning_steer.methods.base import SteeringMethod
from lightning_steer.metrics.bypass import bypass
from lightning_steer.metrics.columns import as_clusters, as_numbers, estimate_columns
from lightning_steer.metrics.evaluation import Evaluation
from lightning_steer.modules.cautions import without_interval
from lightning_steer.report.tables import RANGE
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.kinds import Change, Fixed, Mean, Share, Smooth
from lightning_steer.statistics.random_control import RandomControl
from lightning_steer.versions import versions

_UNKNOWN = Estimate(math.nan, math.nan, math.nan, 0, None, "none: it was meant to move")
COSINE = Mean(-1, 1)
MOVED = Share()
CHOICE = "not an interval: in brackets the middle 95 % of choices over re-samplings of the validation rows"
ALONE = "the choice was not repeated on other rows"
BOUND = (
    "not an interval: a lower bound at the certificate's own confidence; where rows come in clusters, of the mean over "
    "clusters, each counting once"
)
Figures = dict[str, dict[str, Any]]
"""``{name: {"value", "low", "high", "n", "clusters", "how"}}``; of random draws ``p`` and ``higher_is_better`` too."""


class Summary:
    """Estimates of everything that one test has measured.

    Args:
        tested: columns ``group/measure [n, copies]`` of the held-out rows, with ``moved/site`` and ``truth/site``.
        relearned: the same of the rows that the method was fitted to.
        evaluation: which measures there are, and which make the table.
        axes: what the copies of the groups ``strength`` and ``pairs`` stand for.
        searched: the setting was searched for the method and not for random directions, which give no p-value then.
        identity_strength: the strength at which the method changes nothing, where the dose-response begins.
    """

    def __init__(
        self,
        tested: dict[str, Tensor],
        relearned: dict[str, Tensor],
        evaluation: Evaluation,
        axes: Mapping[str, Sequence[float]],
        searched: bool = False,
        identity_strength: float = 0.0,
    ) -> None:
        self.tested, self.relearned = _on_processor(tested), _on_processor(relearned)
        self.evaluation, self.axes, self.searched = evaluation, axes, searched
        self.identity_strength = identity_strength

    def estimates(self, table: dict[str, Tensor], name: str) -> dict[str, list[Estimate]]:
        """Every figure of a group's candidates."""
        return self.evaluation.estimates(_columns(table, name), table["cluster"])

    def group(self, name: str, table: dict[str, Tensor] | None = None) -> Figures:
        """The table's measures of a single candidate; of the unsteered one some are known by definition."""
        table = self.tested if table is None else table
        every = self.estimates(table, name)
        figures = {measure: every[measure][0] for measure in self.evaluation.headline}
        if name == "baseline":
            for measure, value in self.evaluation.by_definition.items():
                if measure in figures:
                    rows = table["cluster"]
                    figures[measure] = Fixed(value).estimate(as_numbers(rows), as_clusters(rows))[0]
        return {measure: _plain(figure) for measure, figure in figures.items()}

    def controls(self) -> tuple[dict[str, Figures], Figures]:
        """What could be had without steering, on the same rows, and what the method's success has over it, paired."""
        success, cluster = self.evaluation.success, self.tested["cluster"]
        given = self.evaluation.controls(_columns(self.tested, "baseline"), _columns(self.relearned, "baseline"))
        found = {name: self.evaluation.estimates(columns, cluster) for name, columns in given.items()}
        steered = self.tested[f"steered/{success}"]
        above = {f"{success}_over_{name}": steered - columns[success] for name, columns in given.items()}
        over = estimate_columns(above, self.evaluation.kinds, cluster)
        return (
            {name: {m: _plain(one[m][0]) for m in self.evaluation.headline} for name, one in found.items()},
            {name: _plain(estimates[0]) for name, estimates in over.items()},
        )

    def random(self, steered: Mapping[str, list[Estimate]]) -> Figures:
        """Median, minimum and maximum of the random directions, and the rank of the method's own figure."""
        draws, found = self.estimates(self.tested, "random_control"), {}
        for measure in self.evaluation.headline:
            if measure not in self.evaluation.higher_is_better:
                raise ValueError(
                    f"the column {measure!r} of {type(self.evaluation).__name__} does not say which direction is "
                    "wanted: add it to higher_is_better, as True, False, or None if it is not to be ranked"
                )
            drawn, better = [draw.value for draw in draws[measure]], self.evaluation.higher_is_better[measure]
            found[measure] = random_range(drawn, steered[measure][0].value, better, self.searched)
        return found

    def curve(self, name: str, table: dict[str, Tensor]) -> dict[str, Any]:
        """Every measure along an axis; see :func:`points`."""
        estimates = self.estimates(table, name)
        return points(self.axes[name], {measure: estimates[measure] for measure in self.evaluation.headline})

    def dose_response(self, table: dict[str, Tensor]) -> dict[str, Any]:
        """Every measure by strength, from the strength at which nothing is changed; see :func:`by_strength`."""
        start = as_estimates(self.group("baseline", table))
        estimates = self.estimates(table, "strength")
        columns = {measure: estimates[measure] for measure in self.evaluation.headline}
        return by_strength(self.axes["strength"], columns, self.identity_strength, start)

    def random_band(self) -> dict[str, Any]:
        """Median and range of some random directions at every strength, each as long as the method's own shift."""
        draws, start, columns = self.estimates(self.tested, "random_strength"), {}, {}
        for measure, unknown in as_estimates(self.group("baseline")).items():
            values = np.array([one.value for one in draws[measure]]).reshape(len(self.axes["strength"]), -1)
            ends = zip(np.median(values, 1).tolist(), values.min(1).tolist(), values.max(1).tolist(), strict=True)
            columns[measure] = [unknown._replace(value=m, low=low, high=high) for m, low, high in ends]
            start[measure] = unknown._replace(low=unknown.value, high=unknown.value)
        return by_strength(self.axes["strength"], columns, self.identity_strength, start)

    def bypass(self) -> dict[str, Any]:
        """By-pass score."""
        names = ("baseline/gap", "oracle_patch/gap", "positive_input/gap")
        gaps = [as_numbers(self.tested[name][:, 0]) for name in names]
        return self._of_rows(_bypass, *gaps)

    def cosines(self, sites: Sequence[str]) -> Figures:
        """How well the mean displacement points to the class difference, and each displacement to its own pair's."""
        tables = [self.tested[f"{part}/{site}"] for site in sites for part in ("moved", "truth")]
        pairs = zip(tables[::2], tables[1::2], strict=True)
        of_pair = torch.stack([torch.cosine_similarity(moved, truth, dim=1) for moved, truth in pairs]).mean(0)
        return {
            "cosine_class": self._of_rows(_mean_cosine, *map(as_numbers, tables), low=-1, high=1),
            "cosine_pair": _plain(COSINE.estimate(as_numbers(of_pair), as_clusters(self.tested["cluster"]))[0]),
        }

    def profile(self) -> dict[str, dict[str, list[float]]]:
        """Off-target drift of every attribute, ``{measure: {"value": [k], ...}}``; NaN at the targets."""
        found = {}
        for name, column in self.tested.items():
            if name.startswith("profile/"):
                measure = name.removeprefix("profile/")
                kept = {measure: column.nan_to_num()}
                means = estimate_columns(kept, self.evaluation.kinds, self.tested["cluster"])[measure]
                meant = column.isnan().any(0).tolist()
                points = [_UNKNOWN if left else point for left, point in zip(meant, means, strict=True)]
                found[measure] = {key: [getattr(p, key) for p in points] for key in ("value", "low", "high")}
        return found

    def intervention_rate(self, sites: Sequence[str]) -> dict[str, Any]:
        """Share of rows that the method moved at all, at any site."""
        moved = torch.stack([self.tested[f"moved/{site}"].abs().amax(1) > 0 for site in sites]).any(0)
        return _plain(MOVED.estimate(as_numbers(moved), as_clusters(self.tested["cluster"]))[0])

    def report(
        self, choice: Sequence[float], reason: str, sites: Sequence[str], clusters: int | None = None
    ) -> dict[str, Any]:
        """All of it, as plain numbers.

        Args:
            choice: strength, its ends, rows that it was chosen on, certified improvement.
            reason: why this strength.
            sites: where it is steered.
            clusters: clusters over which a certificate takes the mean; None: over rows.
        """
        strength, low, high, rows, bound = choice
        steered, success = self.estimates(self.tested, "steered"), self.evaluation.success
        controls, over = self.controls()
        patched = any(name.startswith("oracle_patch/") for name in self.tested)
        metrics = {
            **{m: _plain(steered[m][0]) for m in (*self.evaluation.headline, *self.evaluation.also)},
            **over,
            "strength": _plain(_chosen(strength, low, high, int(rows), certified=not math.isnan(bound))),
            "intervention_rate": self.intervention_rate(sites),
            **({"bypass": self.bypass(), **self.cosines(sites)} if patched else {}),
        }
        if not math.isnan(bound):
            least = Estimate(bound, bound, math.nan, int(rows), clusters, BOUND)
            metrics["certified_bound"] = _plain(least)
        groups = ("baseline", "mean_ablation", *(["oracle_patch"] if patched else []))
        baselines = {name: self.group(name) for name in groups} | {"random_control": self.random(steered), **controls}
        relearned, kinds = self.estimates(self.relearned, "steered"), self.evaluation.kinds
        return {
            "verdict": self.evaluation.verdict(metrics, baselines),
            "choice": reason,
            "warnings": [
                *without_interval(success, steered[success][0]),
                *self.evaluation.warnings(metrics, baselines),
            ],
            "metrics": metrics,
            "baselines": baselines,
            "fitted_rows": {m: _plain(relearned[m][0]) for m in self.evaluation.headline},
            "dose_response": {"measures": list(self.evaluation.shown), "unit": self.evaluation.unit},
            "curves": {
                "strength": self.dose_response(self.tested),
                "strength_on_fitted_rows": self.dose_response(self.relearned),
                **(
                    {"random": self.random_band()} if any(n.startswith("random_strength/") for n in self.tested) else {}
                ),
                **({"pairs": self.curve("pairs", self.tested)} if self.axes["pairs"] else {}),
            },
            "profile": self.profile(),
            "largest": {m: k.high for m, k in kinds.items() if isinstance(k, (Mean, Change)) and math.isfinite(k.high)},
        }

    def _of_rows(self, statistic: Any, *tables: NDArray, low: float = -math.inf, high: float = math.inf) -> Any:
        return _plain(Smooth(statistic, low, high).estimate(*tables, cluster=as_clusters(self.tested["cluster"]))[0])


def by_strength(
    strengths: Sequence[float],
    columns: Mapping[str, Sequence[Estimate]],
    identity_strength: float,
    start: Mapping[str, Estimate],
) -> dict[str, Any]:
    """Return a curve in ascending order of strength, with ``start`` where nothing is changed."""
    x = list(strengths)
    if identity_strength not in x:
        x = [identity_strength, *x]
        columns = {name: [start[name], *column] for name, column in columns.items()}
    order = sorted(range(len(x)), key=lambda i: x[i])
    return points([x[i] for i in order], {name: [column[i] for i in order] for name, column in columns.items()})


def as_estimates(figures: Figures) -> dict[str, Estimate]:
    """Return a report's figures as the records that they were."""
    return {name: Estimate(**figure) for name, figure in figures.items()}


def points(x: Sequence[float], columns: Mapping[str, Sequence[Estimate]]) -> dict[str, Any]:
    """Return a curve, ``{"x": [...], measure: {"value": [...], "low": [...], "high": [...]}}``."""
    keys = ("value", "low", "high")
    return {"x": list(x)} | {
        name: {k: [getattr(p, k) for p in column] for k in keys} for name, column in columns.items()
    }


def _bypass(weights: NDArray, *gaps: NDArray) -> NDArray:
    return bypass(*(torch.from_numpy(weights * gap.T) for gap in gaps)).unsqueeze(1).numpy()


def _mean_cosine(weights: NDArray, *tables: NDArray) -> NDArray:
    """``[R, 1]`` cosine of mean displacement and mean class difference, averaged over sites."""
    means = [torch.from_numpy(weights @ table / weights.sum(1, keepdims=True)) for table in tables]
    pairs = zip(means[::2], means[1::2], strict=True)
    return torch.stack([torch.cosine_similarity(a, b, dim=1) for a, b in pairs]).mean(0).unsqueeze(1).numpy()


def _chosen(strength: float, low: float, high: float, rows: int, certified: bool) -> Estimate:
    why = "a certificate bounds the improvement, not the strength" if certified else ALONE
    how = f"none: {why}" if math.isnan(low) else CHOICE
    return Estimate(strength, low, high, rows, None, how)


def _on_processor(table: dict[str, Tensor]) -> dict[str, Tensor]:
    """Figures in float64; whole numbers, which are names and no figures, as they are."""
    return {
        name: column.cpu().double() if column.is_floating_point() else column.cpu() for name, column in table.items()
    }


def _columns(table: dict[str, Tensor], group: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{group}/"): part for key, part in table.items() if key.startswith(f"{group}/")}


def random_range(
    draws: ArrayLike, fitted: float, higher_is_better: bool | None, searched: bool = False
) -> dict[str, Any]:
    """Random draws as a report keeps them: the median as value, minimum and maximum as ends, and the rank p-value.

    Args:
        draws: ``[D]`` their values.
        fitted: the value that is ranked among them.
        higher_is_better: which draws are at least as good; None: there is no rank.
        searched: the setting was searched for the fitted value: there is no rank.
    """
    values = np.asarray(draws, dtype=np.float64)
    one = RandomControl(None if searched else higher_is_better).estimate(values, fitted)[0]
    ends = {"value": one.median, "low": one.minimum, "high": one.maximum}
    ranked = {"p": one.p, "higher_is_better": higher_is_better}
    return {**ends, "n": one.draws, "clusters": None, "how": RANGE, **ranked}


def _plain(estimate: Estimate) -> dict[str, Any]:
    return estimate._asdict()


def identify(experiment: str, task: str, backbone: str, method: SteeringMethod) -> dict[str, Any]:
    """What a report is about, and with which versions it was made."""
    settings = list(inspect.signature(type(method)).parameters.values())[1:]
    changed = [f"{p.name}={getattr(method, p.name)!r}" for p in settings if getattr(method, p.name) != p.default]
    return {
        "experiment": experiment,
        "task": task,
        "backbone": backbone,
        "method": f"{type(method).__name__}({', '.join(changed)})" if changed else type(method).__name__,
        "seed": int(os.environ.get("PL_GLOBAL_SEED", "0")),
        "versions": versions(),
    }
