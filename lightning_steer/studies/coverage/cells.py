"""Every cell of the study: one estimate or certificate under one design."""

import itertools
import time
from functools import partial

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lightning_steer.statistics.answer_table import AnswerTable
from lightning_steer.statistics.columns import as_clusters
from lightning_steer.statistics.kinds import Change, Mean, Quantile, Share, Smooth
from lightning_steer.studies.coverage import corrected, designs, statistics_of
from lightning_steer.studies.coverage.cell import Cell, Layout, Outcome, columns_of
from lightning_steer.studies.coverage.certificates import certificate_cells, rank_cells
from lightning_steer.studies.coverage.gate_cells import gate_cells
from lightning_steer.studies.coverage.hard_cells import drift_cells, unbounded_cells, unequal_cells
from lightning_steer.studies.coverage.promises import promise_cells


def _share_cells() -> list[Cell]:
    cells = []
    for n, p in itertools.product((12, 40, 250), (0.0, 0.02, 0.5, 0.95)):
        draw = partial(designs.shares, p=p, icc=0.0, cluster=np.arange(n))
        cells.append(Cell("share, independent rows", f"n {n}, p {p:g}", columns_of(Share(), draw, None, p, 1)))
    return cells


LAYOUTS = list(itertools.product((6, 12, 30, 100), ("10 each", "2 to 30"), (0.0, 0.1, 0.3, 0.6)))


def _clustered_cells() -> list[Cell]:
    cells = []
    for layout in (Layout(*settings) for settings in LAYOUTS):
        for p in (0.02, 0.05, 0.2, 0.5):
            layout.add("share, clusters", f"p {p:g}", Share(), partial(designs.shares, p=p), p, 1, p)
            layout.add("mean in [0, 1], clusters", f"mean {p:g}", Mean(0, 1), partial(designs.halves, p=p), p, 1, p)
        for p in (0.02, 0.05, 0.2):
            draw, true = partial(designs.errors, p=p), designs.mean_error(p)
            layout.add("error of answers, clusters", f"wrong {p:g}", Mean(0, 1), draw, true, 1, p)
        for gains, harms in ((0.02, 0.0), (0.1, 0.05), (0.3, 0.3)):
            label, true, p = f"gains {gains:g}, harms {harms:g}", gains - harms, gains + harms
            binary, graded = (
                partial(draw, gains=gains, harms=harms) for draw in (designs.changes, designs.graded_changes)
            )
            layout.add("paired change, clusters", label, Change(), binary, true, 2, p)
            layout.add("mean in [-1, 1], clusters", label, Mean(-1, 1), graded, true / 2, 2, p)
        for skewed, label in ((False, "normal"), (True, "exponential")):
            draw = partial(designs.reals, skewed=skewed)
            layout.add("mean of a real column, clusters", label, Mean(), draw, 1, np.nan, 0)
        for q in (0.5, 0.95):
            draw = partial(designs.reals, skewed=False)
            true = statistics_of.normal_quantile(q)
            layout.add("quantile, clusters", f"q {q:g}", Quantile(q), draw, true, np.nan, 0)
        cells += layout.cells
    return cells


PAIRS = ((0.01, 0.005), (0.02, 0.01), (0.03, 0.0), (0.1, 0.05))


def _answer_cells() -> list[Cell]:
    cells = []
    for n, (gains, harms), base in itertools.product((60, 250, 1000), PAIRS, (0.5, 0.8, 0.95)):
        if gains > 1 - base + 1e-12:
            continue
        design = f"n {n}, base {base:g}, gains {gains:g}, harms {harms:g}"
        for classes in (2, 4):
            outcome = partial(_answers, n=n, classes=classes, base=base, gains=gains, harms=harms)
            cells.append(Cell(f"answers in {classes} classes", design, outcome))
    return cells


def _answers(random: Generator, sets: int, n: int, classes: int, base: float, gains: float, harms: float) -> Outcome:
    chances = designs.answer_cells(classes, base, gains, harms)
    counts = random.multinomial(n, chances.ravel(), sets).reshape(-1, *chances.shape)
    figures = AnswerTable(classes).from_counts(counts.astype(float))
    true = statistics_of.true_figures(chances)
    return {
        name: (intervals, true[name], 1.0 if "accuracy" in name else 2.0)
        for name, intervals in figures.items()
        if name in true
    }


def _row_cells() -> list[Cell]:
    cells = []
    for n, (gains, harms) in itertools.product((60, 250, 1000), PAIRS):
        settings = {"gains": gains, "harms": harms, "icc": 0.0, "cluster": np.arange(n)}
        for kind, draw, scale, table in (
            (Change(), designs.changes, 1.0, "paired change, independent rows"),
            (Mean(-1, 1), designs.graded_changes, 0.5, "mean in [-1, 1], independent rows"),
        ):
            outcome = columns_of(kind, partial(draw, **settings), None, scale * (gains - harms), 2)
            cells.append(Cell(table, f"n {n}, gains {gains:g}, harms {harms:g}", outcome))
    for n, p in itertools.product((12, 40, 250), (0.02, 0.05, 0.2, 0.5)):
        draw = partial(designs.halves, p=p, icc=0.0, cluster=np.arange(n))
        cells.append(
            Cell("mean in [0, 1], independent rows", f"n {n}, mean {p:g}", columns_of(Mean(0, 1), draw, None, p, 1))
        )
    for n, p in itertools.product((60, 100, 250), (0.01, 0.02, 0.05, 0.2)):
        draw, true = partial(designs.errors, p=p, icc=0.0, cluster=np.arange(n)), designs.mean_error(p)
        outcome = columns_of(Mean(0, 1), draw, None, true, 1)
        cells.append(Cell("error of answers, independent rows", f"n {n}, wrong {p:g}", outcome))
    for n, q in itertools.product((60, 250), (0.05, 0.25, 0.5, 0.75, 0.95)):
        draw = partial(designs.reals, skewed=True, icc=0.0, cluster=np.arange(n))
        cells.append(
            Cell(
                "quantile, independent rows",
                f"n {n}, q {q:g}",
                columns_of(Quantile(q), draw, None, -np.log(1 - q), np.nan),
            )
        )
    return cells


def _smooth_cells() -> list[Cell]:
    cells = []
    for (label, cluster), d in itertools.product(
        (("50 prompts", None), ("10 topics x 10", np.repeat(np.arange(10), 10))), (0.0, 0.5, 1.0, 2.0)
    ):
        cells.append(Cell("AUC, Cohen's d, margin", f"{label}, d {d:g}", partial(_two_groups, cluster=cluster, d=d)))
    for terms, p, lms in itertools.product((3, 12, 30, 79), (0.5, 0.6), (0.9, 0.98, 1.0)):
        name = f"{terms} terms, SS {100 * p:g}, LMS {100 * lms:g}"
        cells.append(Cell("ICAT over terms", name, partial(_icat, terms=terms, p=p, lms=lms)))
    return cells


def _two_groups(random: Generator, sets: int, cluster: NDArray | None, d: float) -> Outcome:
    n = 50 if cluster is None else len(cluster)
    group = (np.arange(n) % 2).astype(float)
    icc = 0.0 if cluster is None else 0.3
    scores = designs.reals(random, False, icc, np.arange(n) if cluster is None else cluster, sets)
    scores += d * group[:, None]
    clusters = as_clusters(cluster, n)
    # topics shift both groups equally
    auc = statistics_of.true_auc(d)
    return {
        "AUC": (Smooth(partial(statistics_of.auc, group=group), 0, 1).interval([scores], clusters), auc, 1),
        "Cohen's d": (Smooth(partial(statistics_of.cohens_d, group=group)).interval([scores], clusters), d, np.nan),
        "margin": (Smooth(partial(statistics_of.margin, group=group)).interval([scores], clusters), d, np.nan),
    }


def _icat(random: Generator, sets: int, terms: int, p: float, lms: float) -> Outcome:
    cluster = np.repeat(np.arange(terms), 25)
    stereotype = designs.shares(random, p, 0.02, cluster, sets)
    meaning = designs.shares(random, lms, 0.02, cluster, sets) if lms < 1 else np.ones_like(stereotype)
    intervals = Smooth(statistics_of.icat, 0, 100).interval([stereotype, meaning], as_clusters(cluster, len(cluster)))
    return {"ICAT": (intervals, 100 * lms * min(p, 1 - p) / 0.5, 100)}


def _corrected_cells() -> list[Cell]:
    return [Cell("change by a judge, corrected by labels", *design) for design in corrected.designs()]


def all_cells() -> list:
    """Return every cell, the slowest first."""
    return [
        *_answer_cells(), *certificate_cells(), *promise_cells(), *rank_cells(), *gate_cells(), *_clustered_cells(),
        *unequal_cells(), *drift_cells(), *unbounded_cells(), *_corrected_cells(), *_smooth_cells(),
        *_row_cells(), *_share_cells(),
    ]  # fmt: skip


def select(tables: list[str]) -> list:
    """Return the cells of tables whose name contains one of these words."""
    return [cell for cell in all_cells() if any(word in cell.table for word in tables)]


def run(index: int, tables: list[str], sets: int) -> tuple[list[dict], float]:
    """Return the rows of one of the selected cells, and the seconds of processor time that it took."""
    start = time.process_time()
    return select(tables)[index].run(sets), time.process_time() - start
