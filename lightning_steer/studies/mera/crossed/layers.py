"""Exploratory: the first design's small networks, read and steered before each block.

Both declared designs read and steer one state, before the last of three blocks. Here the same rows, probes, strengths,
certificate and SPI are run at every state: on the networks and draws of the first design's verdict, and on some of the
second's with a third of the rows of the pull label. The kind that no direction repairs is left out. The second table
says how the probe's weights w lie among the states, and how much of the fall that the probe predicts a step achieves.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from lightning_steer.probes.error_probe import logit_error
from lightning_steer.report.files import write_json, write_text
from lightning_steer.studies.mera.crossed import cell, declaration, jobs, networks, priors, probes, worlds
from lightning_steer.studies.mera.crossed.declaration import RIDGE, SIGMA, Side, W
from lightning_steer.studies.mera.crossed.results import Key, chosen, deployed
from lightning_steer.studies.mera.crossed.shifts import Answer, Family, families, gradient
from lightning_steer.studies.mera.crossed.tables import number, ranged, table

WAYS = {
    "w, adaptive, probe by R2": W,
    "w, constant, probe by R2": Side("w", "constant"),
    "Sigma w, adaptive, probe by R2": SIGMA,
    "w, adaptive, ridge 10": Side("w", path="ridge", rule="ridge 10"),
    "w, adaptive, ridge 100": RIDGE,
}
RANDOM = "20 random directions, constant"
STATES = {
    above: f"before block {networks.BLOCKS - above + 1}" for above in range(networks.BLOCKS, networks.ABOVE - 1, -1)
}
"""Names of the states by the number of blocks that are still to come; the last is the declared one."""
ADAPTIVE = [way for way, side in WAYS.items() if side.dose == "adaptive"]
ALONG_W = [way for way in ADAPTIVE if way.startswith("w, ")]
STRENGTH = 2
"""Index of the threshold, .1, at which what a step achieves is measured."""
DESIGNS = {
    worlds.WORLDS[0].pull_share: (declaration.NETWORKS, declaration.DRAWS),
    priors.EQUAL: (priors.NETWORKS[:2], priors.DRAWS[:2]),
}
"""Networks and draws by the share of the pull label in all rows."""
GEOMETRY = (
    "cosine of w and Sigma w",
    "cosine of w and the causal gradient",
    "variance along w",
    "effective dimensions",
)


class Cell(NamedTuple):
    """Key of a cell."""

    above: int
    """Blocks above the state that is read and steered."""
    prior: priors.Prior

    @property
    def file(self) -> str:
        """Return the name of the cell's file."""
        return f"{self.above} above {self.prior.file}"


def design() -> list[Cell]:
    """Return all cells."""
    return [
        Cell(above, priors.Prior(kind, share, network, draw))
        for share, (seeds, draws) in DESIGNS.items()
        for above in STATES
        for kind in priors.KINDS
        for network in seeds
        for draw in draws
    ]


def one(key: Cell, network_folder: Path, rows: int = 250) -> dict[str, Any]:
    """Run one cell as the declared designs do, and describe the state's geometry."""
    prior = key.prior
    world = next(w for w in worlds.WORLDS if w.name == prior.kind)
    trained, named = networks.load(network_folder, world, prior.network), Key(prior.kind, str(prior.network), "", 0)
    parts, answer = jobs.drawn(trained, world, named._replace(draw=prior.draw), rows, prior.share, key.above)
    return cell.run(parts, answer, 1000 * prior.draw, False, _wanted) | {"geometry": geometry(parts, answer)}


def _wanted(family: Family) -> bool:
    if family.direction.startswith("random"):
        return True
    if family.probe.startswith("lasso"):
        return (family.direction, family.dose) in {(side.direction, side.dose) for side in WAYS.values()}
    return family.probe in ("ridge 10", "ridge 100") and (family.direction, family.dose) == ("w", "adaptive")


def geometry(parts: cell.CellParts, answer: Answer) -> dict[str, float]:
    """Return how the weights of the probe chosen by R2 lie among states, and what adaptive steps achieve.

    The variance along w is given over the mean variance of a coordinate; effective dimensions are the squared sum of
    the covariance's eigenvalues over the sum of their squares. For figures named as an adaptive way see ``achieved``.
    """
    train = parts.train
    error = _error(train.logits, train.y)
    linear = [probe for probe in probes.fit(train.h, error) if probe.kind != "logistic"]
    best = probes.best(linear, "lasso")
    fitted = {"R2": best} | {f"ridge {penalty:g}": probes.best(linear, "ridge", penalty) for penalty in (10.0, 100.0)}
    covariance = train.h.double().T.cov(correction=0)
    sigma_w, causal = covariance @ best.weight, gradient(answer, train.h, train.y)
    figures = (
        torch.cosine_similarity(best.weight, sigma_w, dim=0),
        torch.cosine_similarity(best.weight, causal, dim=0),
        best.weight @ sigma_w / best.weight.square().sum() / covariance.diagonal().mean(),
        covariance.trace().square() / covariance.square().sum(),
    )
    found = {
        (f.probe, f.direction): f
        for f in families(answer, train.h, train.y, error, [*fitted.values()], 0)
        if f.dose == "adaptive"
    }
    names = {rule: f"{probe.kind} {probe.penalty:g}" for rule, probe in fitted.items()}
    return dict(zip(GEOMETRY, map(float, figures), strict=True)) | {
        way: achieved(parts.test, answer, found[names[WAYS[way].rule], WAYS[way].direction]) for way in ADAPTIVE
    }


@torch.no_grad()
def achieved(part: cell.CellPart, answer: Answer, family: Family) -> float:
    """Return the fall of the logit error of the rows that one strength moves, over the fall that the probe predicts.

    Answers and errors are those of ``part``. It is 0 if no row moves.
    """
    amount = (part.h.double() @ family.weight + family.offsets[STRENGTH]).clamp_min(0)
    after = answer((part.h.double() - amount[:, None] * family.along).float())
    fall = logit_error(_error(part.logits, part.y)) - logit_error(_error(after, part.y))
    return float(fall[amount > 0].sum() / amount.sum().clamp_min(1e-12))


def _error(logits: Tensor, y: Tensor) -> Tensor:
    return 1 - logits.double().softmax(-1)[torch.arange(len(y)), y]


def spi(found: Mapping[str, Any], way: str) -> tuple[float, int, int]:
    """Return the deployed SPI of a way in a cell, and how many of how many directions are certified."""
    if way == RANDOM:
        rows = [f for f in found["families"] if f["direction"].startswith("random")]
    else:
        rows = [chosen(found, WAYS[way])]
    return float(np.mean([deployed(found, f) for f in rows])), sum(f["certified"] for f in rows), len(rows)


def text(cells: Mapping[Cell, Mapping[str, Any]]) -> str:
    """Return the tables: a kind's value is the mean over its networks and draws."""
    kinds = [kind for kind in priors.KINDS if any(key.prior.kind == kind for key in cells)]
    sections = []
    for share in DESIGNS:
        steered, lying = [], []
        for above, state in STATES.items():
            of_state = {k.prior: c for k, c in cells.items() if (k.above, k.prior.share) == (above, share)}

            def by_kind(value: Callable[[Any], float], of_state: Mapping[Any, Any] = of_state) -> list[float]:
                return [float(np.mean([value(c) for k, c in of_state.items() if k.kind == kind])) for kind in kinds]

            for way in (*WAYS, RANDOM):
                values = by_kind(lambda c, way=way: spi(c, way)[0])
                counts = np.array([spi(c, way)[1:] for c in of_state.values()]).sum(0)
                steered.append(
                    [f"{state}: {way}", _ranged(values), " ".join(map(number, values)),
                     f"{counts[0]} of {counts[1]}"]
                )  # fmt: skip
            columns: list[Callable[[Any], float]] = [
                *(lambda c, side=WAYS[way]: chosen(c, side)["r2"] for way in ALONG_W),
                *(lambda c, name=name: c["geometry"][name] for name in (*GEOMETRY, *ADAPTIVE)),
            ]
            shown = map(by_kind, columns)
            lying.append([state, *map(_ranged, shown)])
        of_share = [c["base"]["accuracy"] for key, c in cells.items() if key.prior.share == share]
        sections += [
            table([f"SPI deployed by state, share {share:.2f}", "mean (range of the kinds)", "kinds", "certified"],
                  steered),
            table([f"states, share {share:.2f}", *(f"R2, {way.removeprefix('w, adaptive, ')}" for way in ALONG_W),
                   *GEOMETRY, *(f"achieved, {way}" for way in ADAPTIVE)], lying),
            f"Share {share:.2f}: {len(of_share)} cells; accuracy without steering {_ranged(of_share)}.\n",
        ]  # fmt: skip
    return "\n".join(sections) + f"\nKinds in order: {', '.join(kinds)}.\n"


def _ranged(values: Sequence[float]) -> str:
    return f"{number(float(np.mean(values)))} ({ranged(values)})"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the missing cells and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m lightning_steer.studies.mera.crossed.layers", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("logs/mera/crossed/layers"), help="where the tables go")
    parser.add_argument("--networks", type=Path, default=Path("logs/mera/crossed/networks"), help="trained if missing")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    cells = {}
    for key in tqdm(design(), desc="layers"):
        path = options.out / "cells" / key.file
        if not path.is_file():
            write_json(path, one(key, options.networks))
        cells[key] = json.loads(path.read_text())
    write_text(options.out / "summary.md", text(cells))
    print(f"{text(cells)}\nTables in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
