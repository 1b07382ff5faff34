"""Exploratory: directions and doses at both ends of the second design, with the strength chosen without a certificate.

Both declared designs take the strength with the best bound on 250 prompts, under which small gains that come with harms
count as none: a way that repairs a little looks as if it repaired nothing. Here the strength is the one with the
largest mean gain on 4,000 further rows (none, if none gains), and SPI is that of the test rows, of the second design's
first two networks and first draw. The second design varies the share of the pull label in all rows at once. Here the
rows to fit and those to steer (which choose the strength and test) have it at 1/10 or at 1/3 each, crossed. About
two minutes of one core.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm.auto import tqdm

from lightning_steer.metrics.spi import spi
from lightning_steer.report.files import write_json, write_text
from lightning_steer.studies.mera.controls import fitted_bias
from lightning_steer.studies.mera.crossed import jobs, networks, priors, probes, worlds
from lightning_steer.studies.mera.crossed.cell import CellPart, CellParts
from lightning_steer.studies.mera.crossed.results import Key
from lightning_steer.studies.mera.crossed.shifts import Answer, answers, families
from lightning_steer.studies.mera.crossed.tables import number, ranged, table

SHARES = (priors.SHARES[0], priors.EQUAL)
NETWORKS, DRAW = priors.NETWORKS[:2], priors.DRAWS[0]
ROWS = 4000
"""Rows that choose the strength; none of the designs' rows."""


class StrengthCell(NamedTuple):
    """Key of a cell."""

    kind: str
    fitted: float
    """Share of the pull label in the rows that probes, directions and the label bias are fitted to."""
    steered: float
    """Share in the rows that choose the strength and test."""
    network: int

    @property
    def file(self) -> str:
        """Return the name of the cell's file."""
        return f"fitted {self.fitted:.2f} {priors.Prior(self.kind, self.steered, self.network, DRAW).file}"


class Way(NamedTuple):
    """A way to steer that is run here."""

    probe: str
    """``R2``, the penalty of least squares and lasso that predicts best; ``ridge 100``; ``-`` without a probe."""
    direction: str
    dose: str

    def __str__(self) -> str:
        probe = {"R2": ", probe by R2", "ridge 100": ", ridge 100", "-": ""}[self.probe]
        return f"{self.direction}, {self.dose}{probe}"


WAYS = (
    Way("R2", "w", "adaptive"),
    Way("R2", "w", "constant"),
    Way("ridge 100", "w", "adaptive"),
    Way("ridge 100", "w", "constant"),
    Way("R2", "Sigma w", "adaptive"),
    Way("R2", "Sigma w", "constant"),
    Way("R2", "mean difference", "adaptive"),
    Way("-", "mean difference", "constant"),
    Way("R2", "causal gradient", "adaptive"),
    Way("-", "causal gradient", "constant"),
)
BIAS = "label bias, fitted"


def cell(parts: CellParts, more: CellPart, answer: Answer) -> dict[str, Any]:
    """Return for each way its SPI on the test rows and the largest share of answers that any strength changes.

    Args:
        parts: rows of the second design.
        more: further rows, which choose the strength.
        answer: computes logits from states.
    """
    train, test = parts.train, parts.test
    p = train.logits.double().softmax(-1)
    error = 1 - p[torch.arange(len(p)), train.y]
    linear = [probe for probe in probes.fit(train.h, error) if probe.kind != "logistic"]
    fitted = {"R2": probes.best(linear, "lasso"), "ridge 100": probes.best(linear, "ridge", 100.0)}
    by_settings = {
        (f.probe, f.direction, f.dose): f for f in families(answer, train.h, train.y, error, [*fitted.values()], 0)
    }
    names = {key: f"{probe.kind} {probe.penalty:g}" for key, probe in fitted.items()} | {"-": "-"}
    steered = [by_settings[names[way.probe], way.direction, way.dose] for way in WAYS]
    labels = answers(answer, more.h, more.label, steered)  # [ways, strengths, rows]
    gain = (labels == more.y).double().mean(-1) - more.right.double().mean()
    best = gain.argmax(1, keepdim=True)
    base = test.right.double().mean()
    accuracy = (answers(answer, test.h, test.label, steered, best)[:, 0] == test.y).double().mean(-1)
    accuracy = torch.where(gain.gather(1, best)[:, 0] > 0, accuracy, base)
    changed = (labels != more.label).double().mean(-1).amax(1)
    bias = fitted_bias(train.logits, train.y)
    biased = ((test.logits.double() + bias).argmax(-1) == test.y).double().mean()
    values = spi(base.expand(len(WAYS) + 1), torch.cat([accuracy, biased[None]]))
    return {
        "probe": names["R2"],
        "accuracy": float(base),
        "spi": dict(zip([*map(str, WAYS), BIAS], values.tolist(), strict=True)),
        "changed": dict(zip(map(str, WAYS), changed.tolist(), strict=True)),
    }


def run_cell(key: StrengthCell, network_folder: Path, rows: int = ROWS) -> dict[str, Any]:
    """Run one cell, on the rows of the second design and as many more as are asked for."""
    world = next(w for w in worlds.WORLDS if w.name == key.kind)
    trained, named = networks.load(network_folder, world, key.network), Key(key.kind, str(key.network), "", DRAW)
    parts, answer = jobs.drawn(trained, world, named, 250, key.steered)
    parts = parts._replace(train=jobs.drawn(trained, world, named, 250, key.fitted)[0].train)
    generator = torch.Generator().manual_seed(20_000_000 + 10_000 * DRAW + key.network)
    drawn = worlds.draw(world, rows, generator, key.steered)
    h = trained.network.read(drawn.x)
    return cell(parts, CellPart(h, drawn.y, answer(h)), answer)


def text(cells: Mapping[StrengthCell, Mapping[str, Any]]) -> str:
    """Return the tables: a kind's value is the mean over its networks."""
    kinds = [kind for kind in priors.KINDS if any(key.kind == kind for key in cells)]
    crossed = [(fitted, steered) for fitted in SHARES for steered in SHARES]

    def by_kind(way: str, shares: tuple[float, float]) -> list[float]:
        return [
            float(
                np.mean([c["spi"][way] for k, c in cells.items() if (k.kind, k.fitted, k.steered) == (kind, *shares)])
            )
            for kind in kinds
        ]

    rows, by_kinds = [], []
    for way in [*map(str, WAYS), BIAS]:
        most = "-" if way == BIAS else f"{max(c['changed'][way] for c in cells.values()):.3f}"
        columns = [by_kind(way, shares) for shares in crossed]
        rows.append([way, *(f"{number(float(np.mean(values)))} ({ranged(values)})" for values in columns), most])
        by_kinds.append([way, *(" ".join(map(number, values)) for values in columns[1:])])
    names = [f"fitted at {fitted:.2f}, steered at {steered:.2f}" for fitted, steered in crossed]
    accuracy = {share: [c["accuracy"] for key, c in cells.items() if key.steered == share] for share in SHARES}
    bases = "; ".join(f"at {share:.2f} {np.mean(values):.2f} ({ranged(values)})" for share, values in accuracy.items())
    probe = sorted({c["probe"] for c in cells.values()})
    return (
        table(["SPI at the strength with the largest gain", *names, "answers changed, at most"], rows)
        + "\n"
        + table(["SPI of each kind", *names[1:]], by_kinds)
        + f"\n{len(cells)} cells; kinds in order: {', '.join(kinds)}. Accuracy without steering: {bases}. "
        f"Probes chosen by R2: {', '.join(probe)}.\n"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the missing cells and write the table."""
    parser = argparse.ArgumentParser(
        prog="python -m lightning_steer.studies.mera.crossed.strengths", description=__doc__
    )
    parser.add_argument("--out", type=Path, default=Path("logs/mera/crossed/strengths"), help="where the tables go")
    parser.add_argument("--networks", type=Path, default=Path("logs/mera/crossed/networks"), help="trained if missing")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    keys = [StrengthCell(k, f, s, n) for n in NETWORKS for k in priors.KINDS for f in SHARES for s in SHARES]
    cells = {}
    for key in tqdm(keys, desc="strengths"):
        path = options.out / "cells" / key.file
        if not path.is_file():
            write_json(path, run_cell(key, options.networks))
        cells[key] = json.loads(path.read_text())
    write_text(options.out / "summary.md", text(cells))
    print(f"{text(cells)}\nTables in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
