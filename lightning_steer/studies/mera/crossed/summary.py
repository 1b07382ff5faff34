"""The crossed design's tables: declared contrasts, all combinations, kinds of world, controls, certificate."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import beta

from lightning_steer.report.files import write_figure, write_text
from lightning_steer.statistics.kinds import Share
from lightning_steer.studies.declaration import declared_text
from lightning_steer.studies.mera.crossed import certificate, planted
from lightning_steer.studies.mera.crossed.declaration import DECLARATION, QUESTIONS, Side
from lightning_steer.studies.mera.crossed.figures import against_r2
from lightning_steer.studies.mera.crossed.results import (
    Cells,
    by_kind,
    by_network,
    chosen,
    deployed,
    result,
    units,
    value,
)
from lightning_steer.studies.mera.crossed.shifts import DIRECTIONS, DOSES
from lightning_steer.studies.mera.crossed.tables import number, ranged, table, verdict_table
from lightning_steer.studies.mera.settings import DELTA

UNREPAIRABLE = "no direction repairs"
CHOICES = {
    "paper's probes by R2": ("paper", "R2"),
    "paper's by gain": ("paper", "gain"),
    "ridge by R2": ("ridge", "R2"),
    "ridge by gain": ("ridge", "gain"),
    "ridge 100": ("ridge", "ridge 100"),
    "logistic by prediction": ("logistic", "R2"),
    "any by gain": ("any", "gain"),
}
SHOWN: dict[str, Side | str] = {
    "w, paper's probes by R2": Side("w"),
    "w, ridge 100": Side("w", path="ridge", rule="ridge 100"),
    "w, logistic": Side("w", path="logistic"),
    "w, any probe by gain": Side("w", path="any", rule="gain"),
    "Sigma w, paper's probes by R2": Side("Sigma w"),
    "Sigma w, constant": Side("Sigma w", "constant"),
    "mean difference, adaptive": Side("mean difference"),
    "mean difference, constant": Side("mean difference", "constant"),
    "causal gradient, adaptive": Side("causal gradient"),
    "causal gradient, constant": Side("causal gradient", "constant"),
    "mean of 20 random": "mean of 20 random",
    "best of 20 random": "best of 20 random",
    "label bias, fitted": "label bias, fitted",
    "label bias, contextual": "label bias, contextual",
    "constant class": "constant class",
}


def write(out: Path, cells: Cells, controls: Mapping[str, Any], power: Any, gaps: Mapping[str, float]) -> str:
    """Write ``summary.md`` and the figure; return the text."""
    usable = {key: cell for key, cell in cells.items() if key.kind != UNREPAIRABLE}
    kinds = list(dict.fromkeys(key.kind for key in usable))
    sections = [declared_text(DECLARATION)] if len(kinds) > 2 else []
    for question in DECLARATION.questions if len(kinds) > 2 else ():
        comparisons = QUESTIONS[question.name]
        results = {c.contrast.name: result(usable, c, len(comparisons)) for c in comparisons}
        sections.append(verdict_table(question, results, {c.contrast.name: units(usable, c) for c in comparisons}))
    sections += [positive(controls), crossed(usable), worlds(cells), quality(cells), random_directions(cells)]
    sections += [by_effect(power), of_cells(cells), networks(gaps)]
    text = "\n".join(sections)
    write_text(out / "summary.md", text)
    write_figure(against_r2(usable, kinds), out, "spi_against_r2")
    return text


def _certified(cells: Cells, side: Side) -> str:
    return f"{sum(chosen(cell, side)['certified'] for cell in cells.values())}/{len(cells)}"


def crossed(cells: Cells) -> str:
    """Return direction x dose x choice of the penalty: deployed SPI (mean over kinds of world), how often certified."""
    rows = []
    for direction in DIRECTIONS:
        for dose in DOSES:
            row = [f"{direction}, {dose}"]
            needs_no_probe = dose == "constant" and direction not in ("w", "Sigma w")
            for path, rule in CHOICES.values():
                side = Side(direction, dose, path, rule)
                mean = np.mean(list(by_kind(cells, lambda cell, side=side: value(cell, side)).values()))
                row.append(f"{mean:.2f} ({_certified(cells, side)})")
            rows.append([*row[:2], *["same"] * (len(row) - 2)] if needs_no_probe else row)
    return table(["SPI deployed (certified)", *CHOICES], rows)


def worlds(cells: Cells) -> str:
    """Return the main sides by kind of world: mean and range over networks."""
    kinds = list(dict.fromkeys(key.kind for key in cells))
    return table(["SPI by kind of world", *kinds], _by_kind(cells, kinds, "spi"))


def quality(cells: Cells) -> str:
    """Return the gains in balanced accuracy and Matthews's coefficient over the baseline."""
    kinds = list(dict.fromkeys(key.kind for key in cells))
    tables = []
    for title, figure in (("Balanced accuracy gained", "balanced_accuracy"), ("MCC gained", "mcc")):
        tables.append(table([title, *kinds], _by_kind(cells, kinds, figure)))
    return "\n".join(tables)


def _by_kind(cells: Cells, kinds: Sequence[str], figure: str) -> list[list[str]]:
    rows = []
    for name, side in SHOWN.items():

        def gained(cell: Mapping[str, Any], side: Any = side) -> float:
            return value(cell, side, figure) - (0.0 if figure == "spi" else cell["base"][figure])

        gains = by_network(cells, gained)
        rows.append([name, *(_range(list(gains[kind].values())) for kind in kinds)])
    return rows


def _range(values: Sequence[float]) -> str:
    mean = number(float(np.mean(values)))
    return mean if len(values) < 2 else f"{mean} ({ranged(values)})"


def random_directions(cells: Cells) -> str:
    """Return how many of twenty random directions are certified, and their SPI."""
    rows = []
    for kind in dict.fromkeys(key.kind for key in cells):
        kind_cells = [cell for key, cell in cells.items() if key.kind == kind]
        random_families = [[f for f in cell["families"] if f["direction"].startswith("random")] for cell in kind_cells]
        share = np.array([[f["certified"] for f in directions] for directions in random_families])
        spi = np.array(
            [[deployed(c, f) for f in directions] for c, directions in zip(kind_cells, random_families, strict=True)]
        )
        wrong = sum(f["certified"] and f["accuracy"] <= c["base"]["accuracy"]
                    for c, directions in zip(kind_cells, random_families, strict=True) for f in directions)  # fmt: skip
        cells_with = f"{(share.any(1)).sum()}/{len(kind_cells)}"
        rows.append([kind, f"{share.mean():.2f}", cells_with, f"{np.median(spi.mean(0)):.2f}",
                     f"{spi.mean():.2f}", f"{spi.max(1).mean():.2f}", f"{wrong}/{int(share.sum())}"])  # fmt: skip
    head = ["random directions", "certified, share", "cells with any", "median of 20", "mean SPI", "mean best of 20",
            "certified, no gain on test rows"]  # fmt: skip
    return table(head, rows)


def positive(controls: Mapping[str, Any]) -> str:
    """Return how often the planted patterns are found."""
    is_found: dict[str, Callable[[planted.Repeat], bool]] = {
        "w repairs": lambda r: r.w > 0,
        "filter": lambda r: r.ridge > r.w and r.sigma > r.w,
        "dose": lambda r: r.sigma > r.constant,
    }
    rows = []
    for kind, values in controls.items():
        repeats = [planted.Repeat(*v) for v in values]
        hits = np.array([is_found[kind](r) for r in repeats], dtype=float)
        rows.append([kind, *(f"{np.mean(column):.2f}" for column in zip(*repeats, strict=True)),
                     f"{int(hits.sum())}/{len(hits)}", str(Share().estimate(hits)[0])])  # fmt: skip
    head = ["positive control", "w by R2", "w, ridge 100", "Sigma w by R2", "constant", "found", "share"]
    return table(head, rows)


def _too_many(false: int, repeats: int) -> str:
    """Return the share of false certificates, and whether its 99 % interval lies above delta."""
    low = float(beta.ppf(0.005, false, repeats - false + 1)) if false else 0.0
    return f"{false / repeats:.4f}{' (too many)' if low > DELTA else ''}"


def by_effect(power: Sequence[Mapping[str, Any]]) -> str:
    """Return the certificate's power and false rate by planted true effect."""
    effects = list(dict.fromkeys(entry["effect"] for entry in power))
    rows = []
    for name in certificate.SETS:
        counts = {entry["effect"]: entry for entry in power if entry["set"] == name}
        rows.append([f"{name}: certified", *(f"{counts[e]['certified'] / counts[e]['repeats']:.3f}" for e in effects)])
        rows.append([f"{name}: falsely", *(_too_many(counts[e]["false"], counts[e]["repeats"]) for e in effects)])
    return table(["certificate by true effect", *(f"{e:g}" for e in effects)], rows)


BINS = (-1.0, 0.0, 0.005, 0.02, 0.05, 0.1, 1.0)


def of_cells(cells: Cells) -> str:
    """Return power and false rate of the design's candidates by best true effect; test rows are the population."""
    rows = []
    for name in ("random", "mixed"):
        entries = [cell["certificate"][name] for cell in cells.values() if "certificate" in cell]
        for low, high in pairwise(BINS):
            in_bin = [entry for entry in entries if low < entry["best"] <= high]
            if not in_bin:
                continue
            repeats = sum(entry["repeats"] for entry in in_bin)
            worst = max(in_bin, key=lambda entry: entry["false"])
            rows.append([f"{name}, best true effect in ({low:g}, {high:g}]", str(len(in_bin)),
                         f"{sum(entry['certified'] for entry in in_bin) / repeats:.3f}",
                         f"{sum(entry['false'] for entry in in_bin) / repeats:.4f}",
                         _too_many(worst["false"], worst["repeats"])])  # fmt: skip
    return table(["candidates of the design", "cells", "certified", "falsely, mean", "falsely, worst cell"], rows)


def networks(gaps: Mapping[str, float]) -> str:
    """Return how well the small networks learned their worlds."""
    values = set(gaps.values())  # kinds that differ only in the probes' rows share their networks, bit for bit
    largest_gap = f"{max(values):.4f}" if values else "-"
    return f"Small networks: {len(values)}, mean KL from the planted answers at most {largest_gap} nats.\n"
