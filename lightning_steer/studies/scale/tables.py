"""The study's tables, to be quoted by ``docs/scale-of-conclusions.md``."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_steer.markdown import table
from lightning_steer.statistics.kinds import Mean
from lightning_steer.studies.arena.summary import ranks
from lightning_steer.studies.declaration import Question, claim, declared_text
from lightning_steer.studies.mera.crossed.declaration import SIGMA, W
from lightning_steer.studies.mera.crossed.results import chosen, value
from lightning_steer.studies.scale import declared
from lightning_steer.studies.scale.declared import BALANCED, LARGE, PULL, SMALL
from lightning_steer.studies.scale.design import Design, mera_name
from lightning_steer.studies.scale.results import FindingRow, Parts, agreement, effects, rows, units
from lightning_steer.studies.scale.training import MODELS, folder_of

SIDES = {"w, R2": W, "w, any by gain": declared.GAIN, "Sigma w, R2": SIGMA}


def text(
    questions: Sequence[Question],
    parts: Parts,
    models: Mapping[str, Path],
    openings: Sequence[Mapping[str, str]],
    design: Design,
) -> str:
    """Return the tables of the questions that were measured, and the declaration."""
    by_question = {q: rows(q, *(units(q, parts, size, design) for size in (SMALL, LARGE))) for q in questions}
    lines = [*verdict_counts([row for listed in by_question.values() for row in listed]), ""]
    lines += [*model_table(parts, models), ""]
    for question, listed in by_question.items():
        digits = 4 if question is declared.KNOWLEDGE else 3
        lines += [f"## {question.name}\n", f"{question.text}\n", *findings(question.name, listed, digits), ""]
        lines += [f"Intervals: {'; '.join(dict.fromkeys(row.difference.how for row in listed))}.\n"]
        if question is declared.MERA:
            lines += [*certified(parts, design), "", *pairs(parts, design), ""]
        if question is declared.FIDELITY:
            lines += [*sides(parts), ""]
        if question is declared.ARENA:
            lines += [*agreements(parts, design), "", *methods(parts, design), ""]
    lines += [f"Opened {entry['opened']} under declaration {entry['declaration']}.\n" for entry in openings]
    return "\n".join([*lines, declared_text(declared.DECLARATION)])


def number(value: float) -> str:
    """Return a smallest effect with three digits."""
    return f"{value:.3g}" if math.isfinite(value) else "-"


def verdict_counts(listed: Sequence[FindingRow]) -> list[str]:
    """Return how many findings held."""
    names = ("held", "did not hold", "not known", "not repeated")
    count = {name: [row.contrast.name for row in listed if row.verdict == name] for name in names}
    return table(("verdict", "findings", "which"), [(n, str(len(of)), "; ".join(of) or "-") for n, of in count.items()])


def findings(name: str, listed: Sequence[FindingRow], digits: int) -> list[str]:
    """Return a question's findings at both sizes."""
    head = (name, "claim", SMALL, LARGE, f"{LARGE} less {SMALL}", f"shown at {SMALL}, {LARGE}", "units on its side",
            f"could have seen: {SMALL}, {LARGE}, difference", "verdict")  # fmt: skip
    cells = []
    for row in listed:
        estimates = [each.estimate.text(digits) for each in row.results]
        smallest = [*(each.detectable for each in row.results), row.could_have_seen]
        told = ", ".join("yes" if shown else "no" for shown in row.shown)
        cells.append((row.contrast.name, claim(row.contrast), *estimates, row.difference.text(digits), told,
                      ", ".join(row.sides), ", ".join(map(number, smallest)), row.verdict))  # fmt: skip
    return table(head, cells)


def parameters(folder: Path) -> int:
    """Return the number of a model's weights, from its file's header."""
    with (folder / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(math.prod(of["shape"]) for name, of in header.items() if name != "__metadata__")


def model_table(parts: Parts, models: Mapping[str, Path]) -> list[str]:
    """Return size and knowledge of each model; errors beside those of a table or a mean that knows less."""
    cells = []
    for size, folder in models.items():
        for model in MODELS:
            row = [f"{size}, {model}", f"{parameters(folder_of(folder, model)):,}"]
            known = parts.get(f"knowledge-{size}-{model}")
            if known is None:
                cells.append((*row, "-", "-", "-"))
                continue
            gap = Mean().estimate(known["units"][f"loss, {model}"])[0].text(4)
            pairs = [f"{own:.3f} ({blind:.3f})" for own, blind in known["sizes"].values()]
            cells.append((*row, gap, *pairs))
    head = ("model", "parameters", "loss above the entropy, nats a token", "error of log-odds (group-blind table)",
            "error of P(wrong label) (task's mean)")  # fmt: skip
    return table(head, cells)


def certified(parts: Parts, design: Design) -> list[str]:
    """Return in how many of MERA's cells a way to steer is certified, and its mean SPI where it is deployed."""
    cells = []
    for size in (SMALL, LARGE):
        for mixture in (PULL, BALANCED):
            of = [
                parts[mera_name(size, *unit, mixture, draw)] for unit in design.mera_units for draw in design.mera_draws
            ]
            row = [f"{size}, {mixture}", f"{np.mean([cell['base']['accuracy'] for cell in of]):.3f}"]
            for side in SIDES.values():
                picked = [chosen(cell, side) for cell in of]
                spi = [f["spi"] if f["certified"] else 0.0 for f in picked]
                row.append(f"{sum(f['certified'] for f in picked)} of {len(of)}; {np.mean(spi):.3f}")
            cells.append(row)
    return table(("certified; SPI deployed", "accuracy before", *SIDES), cells)


def pairs(parts: Parts, design: Design) -> list[str]:
    """Return SPI deployed of each pair of a model and a task with a tenth of pull labels, the mean over draws."""
    sides: dict[str, Any] = {**SIDES, "mean of 20 random": "mean of 20 random"}
    sides.pop("w, R2")  # certified nowhere
    cells = []
    for unit in design.mera_units:
        row = [", ".join(unit).replace("_", " ")]
        for side in sides.values():
            for size in (SMALL, LARGE):
                of = [parts[mera_name(size, *unit, PULL, draw)] for draw in design.mera_draws]
                row.append(f"{np.mean([value(cell, side) for cell in of]):.2f}")
        cells.append(row)
    return table(("SPI deployed, 10 % pull", *(f"{side}, {size}" for side in sides for size in (SMALL, LARGE))), cells)


def sides(parts: Parts) -> list[str]:
    """Return both sides of the fidelity pattern, and the vectors' lengths, with intervals over terms."""
    cells = []
    for size in (SMALL, LARGE):
        for arm, of in parts[f"fidelity-{size}"].items():
            measures = ("stereotype_change", "unrelated_change", "margin_change", "random")
            row = [Mean().estimate(of[measure])[0].text(3) for measure in measures]
            cells.append((f"{size}, {arm}", *row, ", ".join(f"{norm:.2f}" for norm in of["norm"])))
    head = ("fidelity, nats a token", "stereotype's change", "unrelated sentence's change", "margin's change",
            "margin's change, random directions", "vector's length: towns, trades")  # fmt: skip
    return table(head, cells)


def agreements(parts: Parts, design: Design) -> list[str]:
    """Return how far the arena's order of methods is the same, between sizes and between two draws at the small one."""
    small, large = (effects(parts, size, design) for size in (SMALL, LARGE))
    again = effects(parts, SMALL, design, again=True)
    pairs = {
        f"{SMALL} and {LARGE}, same pairs": (small, large),
        f"{SMALL}, seed {design.arena_seeds[1]}, and {LARGE}": (again, large),
        f"{SMALL}, two seeds of pairs": (small, again),
    }
    cells = [(name, agreement(*pair).text(2)) for name, pair in pairs.items()]
    return table(("rank correlation of the methods", f"over {len(design.arena_tasks)} tasks"), cells)


def methods(parts: Parts, design: Design) -> list[str]:
    """Return each method's mean rank and effect at both sizes, the best of the small model first."""
    reached = {size: effects(parts, size, design) for size in (SMALL, LARGE)}
    names = sorted(reached[SMALL])
    rank = {size: ranks(np.stack([of[name] for name in names], 1)).mean(0) for size, of in reached.items()}
    cells = []
    for i in np.argsort(rank[SMALL], kind="stable").tolist():
        columns = [reached[size][names[i]] for size in (SMALL, LARGE)]
        told = [Mean().estimate(column)[0].text(2) for column in (*columns, columns[1] - columns[0])]
        cells.append((names[i].replace("_", " "), *(f"{rank[size][i]:.1f}" for size in (SMALL, LARGE)), *told))
    head = ("method", f"mean rank, {SMALL}", f"mean rank, {LARGE}", f"effect, {SMALL}, sd", f"effect, {LARGE}, sd",
            "difference, sd")  # fmt: skip
    return table(head, cells)
