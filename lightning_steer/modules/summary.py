"""Turn the rows of a test into its report: every figure with an interval, and its baselines.

One class and one file: all parts of a report are estimated from the same two tables of rows.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.metrics.bypass import bypass
from lightning_steer.metrics.columns import as_clusters, as_numbers, estimate_columns
from lightning_steer.metrics.evaluation import Evaluation
from lightning_steer.modules.cautions import without_interval
from lightning_steer.modules.figures import (
    Figures,
    as_estimates,
    by_strength,
    certified_bound,
    plain,
    points,
    random_range,
)
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.kinds import Change, Fixed, Mean, Share, Smooth

_UNKNOWN = Estimate(math.nan, math.nan, math.nan, 0, None, "none: it was meant to move")
COSINE = Mean(-1, 1)
MOVED = Share()
CHOICE = "not an interval: in brackets the middle 95 % of choices over re-samplings of the validation rows"
ALONE = "the choice was not repeated on other rows"


class Summary:
    """Estimates of everything that one test measured.

    Args:
        tested: columns ``group/measure [n, copies]`` of the held-out rows, with ``moved/site`` and ``truth/site``.
        relearned: the same of the rows that the method was fitted to.
        evaluation: defines the measures, and which of them are in the table.
        axes: values of the copies in the groups ``strength`` and ``pairs``.
        searched: whether the setting was searched for the method only; random directions then give no p-value.
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
        """Return every figure of a group's candidates."""
        return self.evaluation.estimates(_columns(table, name), table["cluster"])

    def group(self, name: str, table: dict[str, Tensor] | None = None) -> Figures:
        """Return the table's measures of a single candidate; some of the baseline's are known by definition."""
        table = self.tested if table is None else table
        estimates = self.estimates(table, name)
        figures = {measure: estimates[measure][0] for measure in self.evaluation.headline}
        if name == "baseline":
            for measure, value in self.evaluation.by_definition.items():
                if measure in figures:
                    rows = table["cluster"]
                    figures[measure] = Fixed(value).estimate(as_numbers(rows), as_clusters(rows))[0]
        return {measure: plain(figure) for measure, figure in figures.items()}

    def by_group(self, groups: Sequence[str]) -> dict[str, Figures]:
        """Return the table's measures, unsteered and steered, of each group of held-out rows; empty for a single one.

        Args:
            groups: the group of each row.
        """
        figures: dict[str, Figures] = {}
        for name in dict.fromkeys(groups) if len(set(groups)) > 1 else ():
            rows = torch.tensor([group == name for group in groups])
            table = {column: values[rows] for column, values in self.tested.items()}
            figures[f"{name}, baseline"] = self.group("baseline", table)
            figures[name] = self.group("steered", table)
        return figures

    def controls(self) -> tuple[dict[str, Figures], Figures]:
        """Return the controls without steering on the same rows, and the paired gains of the method over them."""
        success, cluster = self.evaluation.success, self.tested["cluster"]
        controls = self.evaluation.controls(_columns(self.tested, "baseline"), _columns(self.relearned, "baseline"))
        by_control = {name: self.evaluation.estimates(columns, cluster) for name, columns in controls.items()}
        steered = self.tested[f"steered/{success}"]
        gains = {f"{success}_over_{name}": steered - columns[success] for name, columns in controls.items()}
        gain_estimates = estimate_columns(gains, self.evaluation.kinds, cluster)
        return (
            {
                name: {m: plain(estimates[m][0]) for m in self.evaluation.headline}
                for name, estimates in by_control.items()
            },
            {name: plain(estimates[0]) for name, estimates in gain_estimates.items()},
        )

    def random(self, steered: Mapping[str, list[Estimate]]) -> Figures:
        """Return median, minimum and maximum of the random directions, and the rank of the method's figure."""
        draws, ranges = self.estimates(self.tested, "random_control"), {}
        for measure in self.evaluation.headline:
            if measure not in self.evaluation.higher_is_better:
                raise UserError(
                    f"the column {measure!r} of {type(self.evaluation).__name__} does not say which direction is "
                    "wanted: add it to higher_is_better, as True, False, or None if it is not to be ranked"
                )
            values, better = [draw.value for draw in draws[measure]], self.evaluation.higher_is_better[measure]
            ranges[measure] = random_range(values, steered[measure][0].value, better, self.searched)
        return ranges

    def curve(self, name: str, table: dict[str, Tensor]) -> dict[str, Any]:
        """Return every measure along an axis; see :func:`points`."""
        estimates = self.estimates(table, name)
        return points(self.axes[name], {measure: estimates[measure] for measure in self.evaluation.headline})

    def dose_response(self, table: dict[str, Tensor]) -> dict[str, Any]:
        """Return every measure by strength, starting where nothing is changed; see :func:`by_strength`."""
        start = as_estimates(self.group("baseline", table))
        estimates = self.estimates(table, "strength")
        columns = {measure: estimates[measure] for measure in self.evaluation.headline}
        return by_strength(self.axes["strength"], columns, self.identity_strength, start)

    def random_band(self) -> dict[str, Any]:
        """Return median and range of some random directions at every strength, each as long as the method's shift."""
        draws, start, columns = self.estimates(self.tested, "random_strength"), {}, {}
        for measure, unknown in as_estimates(self.group("baseline")).items():
            values = np.array([draw.value for draw in draws[measure]]).reshape(len(self.axes["strength"]), -1)
            ends = zip(np.median(values, 1).tolist(), values.min(1).tolist(), values.max(1).tolist(), strict=True)
            columns[measure] = [unknown._replace(value=m, low=low, high=high) for m, low, high in ends]
            start[measure] = unknown._replace(low=unknown.value, high=unknown.value)
        return by_strength(self.axes["strength"], columns, self.identity_strength, start)

    def bypass(self) -> dict[str, Any]:
        """Return the by-pass score."""
        names = ("baseline/gap", "oracle_patch/gap", "positive_input/gap")
        gaps = [as_numbers(self.tested[name][:, 0]) for name in names]
        return self._of_rows(_bypass, *gaps)

    def cosines(self, sites: Sequence[str]) -> Figures:
        """Return cosines of the mean displacement with the class difference, and of displacements with their pairs'."""
        tables = [self.tested[f"{kind}/{site}"] for site in sites for kind in ("moved", "truth")]
        pairs = zip(tables[::2], tables[1::2], strict=True)
        of_pair = torch.stack([torch.cosine_similarity(moved, truth, dim=1) for moved, truth in pairs]).mean(0)
        return {
            "cosine_class": self._of_rows(_mean_cosine, *map(as_numbers, tables), low=-1, high=1),
            "cosine_pair": plain(COSINE.estimate(as_numbers(of_pair), as_clusters(self.tested["cluster"]))[0]),
        }

    def profile(self) -> dict[str, dict[str, list[float]]]:
        """Return the off-target drift of every attribute, ``{measure: {"value": [k], ...}}``; NaN at the targets."""
        profile = {}
        for name, column in self.tested.items():
            if name.startswith("profile/"):
                measure = name.removeprefix("profile/")
                columns = {measure: column.nan_to_num()}
                means = estimate_columns(columns, self.evaluation.kinds, self.tested["cluster"])[measure]
                is_target = column.isnan().any(0).tolist()
                points = [_UNKNOWN if skipped else point for skipped, point in zip(is_target, means, strict=True)]
                profile[measure] = {key: [getattr(p, key) for p in points] for key in ("value", "low", "high")}
        return profile

    def intervention_rate(self, sites: Sequence[str]) -> dict[str, Any]:
        """Return the share of rows that the method moved at any site."""
        moved = torch.stack([self.tested[f"moved/{site}"].abs().amax(1) > 0 for site in sites]).any(0)
        return plain(MOVED.estimate(as_numbers(moved), as_clusters(self.tested["cluster"]))[0])

    def report(
        self, choice: Sequence[float], reason: str, sites: Sequence[str], clusters: int | None = None
    ) -> dict[str, Any]:
        """Return the report as plain numbers.

        Args:
            choice: strength, its ends, number of rows that it was chosen on, certified improvement.
            reason: reason for this strength.
            sites: the steered sites.
            clusters: clusters over which a certificate takes the mean; None: over rows.
        """
        strength, low, high, rows, bound = choice
        steered, success = self.estimates(self.tested, "steered"), self.evaluation.success
        controls, gains = self.controls()
        patched = any(name.startswith("oracle_patch/") for name in self.tested)
        metrics = {
            **{m: plain(steered[m][0]) for m in (*self.evaluation.headline, *self.evaluation.also)},
            **gains,
            "strength": plain(_chosen(strength, low, high, int(rows), certified=not math.isnan(bound))),
            "intervention_rate": self.intervention_rate(sites),
            **({"bypass": self.bypass(), **self.cosines(sites)} if patched else {}),
        }
        if not math.isnan(bound):
            metrics["certified_bound"] = certified_bound(bound, int(rows), clusters)
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
            "fitted_rows": {m: plain(relearned[m][0]) for m in self.evaluation.headline},
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
            "largest": {
                m: k.high for m, k in kinds.items() if isinstance(k, (Mean, Change, Smooth)) and math.isfinite(k.high)
            },
        }

    def _of_rows(self, statistic: Any, *tables: NDArray, low: float = -math.inf, high: float = math.inf) -> Any:
        return plain(Smooth(statistic, low, high).estimate(*tables, cluster=as_clusters(self.tested["cluster"]))[0])


def _bypass(weights: NDArray, *gaps: NDArray) -> NDArray:
    return bypass(*(torch.from_numpy(weights * gap.T) for gap in gaps)).unsqueeze(1).numpy()


def _mean_cosine(weights: NDArray, *tables: NDArray) -> NDArray:
    """Return the cosine ``[R, 1]`` of mean displacement and mean class difference, averaged over sites."""
    means = [torch.from_numpy(weights @ table / weights.sum(1, keepdims=True)) for table in tables]
    pairs = zip(means[::2], means[1::2], strict=True)
    return torch.stack([torch.cosine_similarity(a, b, dim=1) for a, b in pairs]).mean(0).unsqueeze(1).numpy()


def _chosen(strength: float, low: float, high: float, rows: int, certified: bool) -> Estimate:
    why = "a certificate bounds the improvement, not the strength" if certified else ALONE
    how = f"none: {why}" if math.isnan(low) else CHOICE
    return Estimate(strength, low, high, rows, None, how)


def _on_processor(table: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert figures to float64; whole numbers are names, and stay as they are."""
    return {
        name: column.cpu().double() if column.is_floating_point() else column.cpu() for name, column in table.items()
    }


def _columns(table: dict[str, Tensor], group: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{group}/"): column for key, column in table.items() if key.startswith(f"{group}/")}
