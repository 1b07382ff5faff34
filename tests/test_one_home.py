"""Only ``statistics`` makes an interval: nothing else computes ends, and every evaluation's column declares a kind."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import lightning_steer
from lightning_steer import metrics
from lightning_steer.data.base import LabelledBatch, PairBatch
from lightning_steer.metrics.columns import estimate_columns
from lightning_steer.metrics.evaluation import Evaluation
from lightning_steer.statistics.kinds import Mean, Share

ROOT = Path(lightning_steer.__file__).parent
MAKERS = {"ppf", "ppf_", "interval", "proportion_ci", "confidence_interval", "bootstrap", "sem", "std_error", "isf",
          "quantile", "nanquantile", "percentile", "nanpercentile", "betaincinv", "multinomial"}  # fmt: skip
"""Names of functions that ends of intervals come from."""
REVIEWED = {
    "metrics/likelihood.py": {"quantile"},  # the bands of the published figure, which hold prompts
    "selection/rule.py": {"percentile"},  # the range of choices over re-samplings, reported as that
    "studies/search/resampled.py": {"interval"},  # asks statistics for those of many sets at once
    "studies/mera/crossed/worlds.py": {"multinomial"},  # draws the labels of a world
    "studies/mera/crossed/priors.py": {"quantile"},  # the smallest effect that repeats would show
    "studies/mera/crossed/results.py": {"ppf", "quantile"},  # the smallest effect that repeats would show
    "studies/mera/crossed/summary.py": {"ppf"},  # whether more certificates are false than promised
}
RECORDS = {
    "modules/summary.py",  # the chosen strength, what was meant to move
    "modules/figures.py",  # the certificate's bound, and what is read from a report
    "metrics/behaviour_effect.py",  # the paper's table, which has no interval
    "studies/fidelity/cells.py",  # read from a file
    "report/nulls.py",  # read from a report
    "studies/fidelity/runs.py",  # read from a sweep
    "studies/mera/estimates.py",  # read from a summary
    "studies/mera/ground_truth.py",  # nothing to repair
    "studies/pocket/errors.py",  # the chosen layer
    "studies/pocket/card.py",  # read from a file
}
"""Files that make the record of an estimate whose ends they were given, or that has none."""


def faults(source: str, name: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in MAKERS - REVIEWED.get(name, set()):
            yield f"{name}:{node.lineno} calls {called}"
        if called == "Estimate" and name not in RECORDS:
            yield f"{name}:{node.lineno} makes the record of an estimate"


def test_nothing_else_makes_an_interval() -> None:
    elsewhere = [
        path
        for path in ROOT.rglob("*.py")
        if path.relative_to(ROOT).parts[0] != "statistics" and "coverage" not in path.parts
    ]
    assert len(elsewhere) > 150
    complaints = [f for path in elsewhere for f in faults(path.read_text(), path.relative_to(ROOT).as_posix())]
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize(
    "line", ["low = stats.t.ppf(0.975, n)", "np.quantile(draws, [0.025, 0.975])", "Estimate(1, 0, 2, 9, None, 'mine')"]
)
def test_one_that_is_made_elsewhere_is_caught(line: str) -> None:
    assert list(faults(line, "metrics/new.py"))


def test_a_column_without_a_kind_is_refused() -> None:
    column = {"new": torch.ones(4, 1)}
    with pytest.raises(ValueError, match="the column 'new' has no declared kind: say"):
        estimate_columns(column, {}, None)
    with pytest.raises(ValueError, match=r"the column 'new': .* declare a bounded mean for graded values"):
        estimate_columns({"new": torch.full((4, 1), 0.5)}, {"new": Share()}, None)


@pytest.mark.parametrize("base", [metrics.Answers, metrics.BehaviourEffect, metrics.StereoSetEffect])
def test_a_column_of_a_subclass_gets_its_own_kind(base: type[Evaluation]) -> None:
    """As the page on adding a metric says."""
    more = type("More", (base,), {"kinds": {**base.kinds, "more": Mean(0, 1)}})()
    g, options = torch.Generator().manual_seed(0), 2 if base is metrics.BehaviourEffect else 3
    scores = torch.randn(2, 12, options, generator=g)
    graded = LabelledBatch([], torch.arange(12) % 3, torch.arange(3), torch.arange(12))
    pairs = PairBatch([], [], [], torch.arange(12), torch.arange(12))
    rows = base().rows(scores[0], scores, graded if base is metrics.Answers else pairs)
    columns = {name: column.T for name, column in rows.items()} | {"more": torch.full((12, 2), 0.5)}
    assert more.estimates(columns, torch.arange(12) // 3)["more"][0].value == 0.5


EVALUATIONS = [kind for kind in vars(metrics).values() if isinstance(kind, type) and issubclass(kind, Evaluation)]


@pytest.mark.parametrize(
    "evaluation", [kind for kind in EVALUATIONS if kind is not Evaluation], ids=lambda kind: kind.__name__
)
def test_what_an_evaluation_can_certify_follows_from_the_kind_of_its_success(evaluation: type[Evaluation]) -> None:
    change = evaluation().change
    assert change is not None
    assert (change.low, change.high) == (-1, 1)
    assert change.whole == isinstance(evaluation.kinds[evaluation.success], Share)
