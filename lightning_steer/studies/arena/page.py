"""The page ``docs/which-method.md`` and its figure, from the parts' numbers."""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lightning_steer.files import is_regular
from lightning_steer.report.files import write_figure, write_text
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.intervals import mean_over_units
from lightning_steer.studies.arena import declared, limits, situations, summary
from lightning_steer.studies.arena.entrants import PROMPT, RANDOM
from lightning_steer.studies.arena.summary import Unit
from lightning_steer.studies.declaration import declared_text, verdict_text

FIGURE = "arena"


class Standing:
    """All figures of the exploring seed, by method."""

    def __init__(self, language: Sequence[Unit], toys: Sequence[Unit], cost: Mapping[str, Any]) -> None:
        self.language, self.toys, self.cost = language, toys, cost
        self.names = [name for name in language[0].effect if all(name in unit.effect for unit in language)]
        self.closed = [name for name in self.names if name != PROMPT]
        self.rank = summary.mean_ranks(language, self.names)
        self.effect = summary.means(language, self.names)
        self.at_budget = summary.means(language, self.names, "at_budget")
        self.over_reference = summary.over_reference(language, self.names)
        self.over_random = summary.over_reference(language, self.names, reference=RANDOM)
        self.reached = summary.reached(language, self.names)
        self.preferred = summary.means(language, self.names, "preferred", -1, 1)
        self.toy = {name: mean_over_units([unit.effect[name] for unit in toys]) for name in self.closed}
        self.toy_pairs = {name: summary.pairs_needed(toys, name) for name in self.closed}
        self.order = sorted(self.names, key=lambda name: self.rank[name].value)

    def random(self, table: Mapping[str, Any], name: str) -> Any:
        """Return a figure of the cost part, of random directions that of the first."""
        return table.get(f"{name} 1" if name == RANDOM else name)

    def form(self, name: str) -> str:
        """Return the form of a method's shift."""
        return self.random(self.cost["form"], name) or "text"

    def pairs(self, name: str) -> str:
        """Return the fitted pairs that a method needs on the toy, as text."""
        needed = self.toy_pairs.get(name)
        return "-" if needed is None else str(needed)


def write(options: argparse.Namespace) -> None:
    """Write the page and its figure."""
    language, toys = summary.read(options.out)
    standing = Standing(language, toys, summary.read_cost(options.out))
    write_figure(figure(standing), options.page.parent / "figures", FIGURE)
    verdict_units, verdict_toys = summary.read(options.out, "verdict-")
    again, _ = summary.read(options.out, "again-")
    openings = []
    if is_regular(options.log):
        openings = [json.loads(line) for line in options.log.read_text().split("\n") if line]
    minutes = [summary.processor_minutes(options.out, prefix) for prefix in ("", "verdict-", "again-")]
    write_text(options.page, text(standing, verdict_units, verdict_toys, again, openings, minutes))


def figure(standing: Standing) -> Figure:
    """Draw each method's mean effect at equal damage with its interval, and what it reaches on the toy."""
    names = standing.order[::-1]
    drawn = Figure(figsize=(8.6, 0.26 * len(names) + 1.4), layout="constrained")
    left, right = drawn.subplots(1, 2, sharey=True)
    y = np.arange(len(names))
    colours = {"vector": "#0072b2", "affine": "#d55e00", "curved": "#009e73", "text": "#000000"}
    for axes, table in ((left, standing.effect), (right, standing.toy)):
        for place, name in enumerate(names):
            if name not in table:
                continue
            estimate, colour = table[name], colours[standing.form(name)]
            axes.plot([estimate.low, estimate.high], [place, place], color=colour, linewidth=1.4)
            axes.plot([estimate.value], [place], marker="o", markersize=4, color=colour, label=standing.form(name))
        axes.axvline(0, color="grey", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_yticks(y, [shown(name) for name in names], fontsize=8)
    left.set_xlabel("held-out effect, standard deviations of the margin [95 %, over tasks]", fontsize=8)
    right.set_xlabel("toy: share of targets read as wanted (range over cells)", fontsize=8)
    handles, labels = left.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    drawn.legend(list(unique.values()), list(unique), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    drawn.suptitle(f"At most {summary.BUDGET:g} nats per token of damage where it was chosen", fontsize=9)
    return drawn


def shown(name: str) -> str:
    """Return a method's name for readers."""
    return name.replace("_", " ")


def main_table(s: Standing) -> str:
    """Return the table of all methods, the best mean rank first."""
    lines = [
        "| method | form | mean rank | effect, sd | less mean difference, sd | prompts turned | "
        f"at the budget exactly | cells at {summary.LEVEL:g} sd (of both: with less damage) | "
        "toy | pairs | fit, ms | steering |",
        f"|{'---|' * 12}",
    ]
    for name in s.order:
        fit, steer = (s.random(s.cost[kind], name) for kind in ("fit", "steer"))
        reached, both, less = s.reached[name]
        toy = s.toy[name].text(2) if name in s.toy else "-"
        cells = (
            shown(name), s.form(name), s.rank[name].text(1), s.effect[name].text(2), s.over_reference[name].text(2),
            s.preferred[name].text(2),
            s.at_budget[name].text(2), f"{reached} of {len(s.language)} ({less} of {both})", toy, s.pairs(name),
            "-" if fit is None else f"{1000 * fit:.0f}", "-" if steer is None else f"{steer[0]:.3f}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def text(
    s: Standing,
    verdict_units: Sequence[Unit],
    verdict_toys: Sequence[Unit],
    again: Sequence[Unit],
    openings: Sequence[Mapping[str, Any]],
    minutes: Sequence[float],
) -> str:
    """Return the page."""
    tasks = len({unit.cluster for unit in s.language})
    models = sorted({unit.name.split("-")[1] for unit in s.language})
    sections = [
        "# Which method should I use?\n",
        "`make arena` writes this page and its figure from the stored numbers of each run. *Damage* is how much "
        "steering changes predictions on unrelated text. *Pocket models* are the small language models of this "
        "project, trained on an artificial language. The *toy* networks classify lists of attributes "
        "([page](toy-laboratory.md)). [Theory](theory.md) says which form of steering is the cheapest under which "
        "measure of cost.\n",
        *situations.answer(s, verdict_units, again),
        f"![Each method's held-out effect within one budget of damage, and on toy networks.](figures/{FIGURE}.png)\n",
        "## The table\n",
        f"The table has {len(s.names)} methods. A cell is one task on one network: {len(s.language)} cells are on "
        f"pocket models ({', '.join(models)}; {tasks} tasks: three behaviours, two traits, five labelling tasks), "
        f"{len(s.toys)} on toy networks, all of seed {declared.SEED}. Every method has the settings of its file in "
        "`configs/methods` and sees the same pairs. Layer and strength are searched as in `steer`, over two "
        "layers (1 and 3) and every other strength, and nearer to the budget where that helps. They may change "
        f"predictions on reference texts by at most {summary.BUDGET:g} nats per token (the damage; this limit is the "
        "budget), and generated text must stay intact. "
        "The result is then measured on pairs and texts that played no part in the "
        "choice. Where no setting helps within the budget, the model stays unsteered, with effect 0. Square brackets: "
        f"95 % intervals over the {tasks} tasks, of paired differences where the column is a difference. Of skewed "
        "effects such intervals hold less often ([coverage](coverage.md)). Round brackets: the range over cells.\n",
        main_table(s) + "\n",
        *explained(s),
        *situations.text(s, verdict_units),
        *verdict(verdict_units, verdict_toys, again, openings),
        *limits.text(minutes),
    ]
    return "\n".join(sections).rstrip() + "\n"


def explained(s: Standing) -> list[str]:
    """Return what the columns mean."""
    estimate: Estimate = next(iter(s.rank.values()))
    slowest = max((values[0], name) for name, values in s.cost["steer"].items())
    return [
        f"- **form** of the shift: one vector for all rows, an affine map of the row, or neither (curved).\n"
        f"- **mean rank** of {len(s.names)}: in each cell the largest held-out effect has rank 1; ties share their "
        "mean "
        f"({estimate.how}).\n"
        "- **effect**: change of the margin between positive and negative continuation, in standard deviations of the "
        "unsteered margins of the cell's held-out pairs, so that tasks can be averaged.\n"
        "- **prompts turned**: change in the share of held-out prompts whose positive continuation is the likelier "
        "one.\n"
        "- **at the budget exactly**: the effect at the strength whose held-out damage equals the budget, interpolated "
        "between the strengths tried at the chosen layer. It corrects for a coarse grid of strengths.\n"
        f"- **cells at {summary.LEVEL:g} sd**: comparison at equal effect. Number of cells in which some strength at "
        "the chosen layer reaches this effect. In brackets: of the cells where the mean difference reaches it too, the "
        "number in which the method does less damage at this effect.\n"
        "- **toy**: change in the share of target attributes that the network reads as intended. The damage is at most "
        f"{summary.BUDGET:g} nats for each of the other attributes. Over cells with 64 fitted pairs.\n"
        f"- **pairs**: fewest fitted pairs (of {', '.join(map(str, sizes(s.toys)))}) that reach {summary.SHARE:.0%} "
        f"of the method's best mean effect on the toy. A dash means that this effect stays below {summary.FAINT:g}, or "
        "that the method is trained.\n"
        "- **fit**: processor time on a pocket model, with the forward passes that read activations. **steering**: "
        "processor time of a forward pass with one shift at one layer, divided by that of the pass alone (random Llama "
        "of 125 million parameters, 64 tokens). The shift is timed alone, without the call of its hook. The slowest "
        f"is {shown(slowest[1])}, "
        f"{slowest[0]:.3f}.\n"
    ]


def sizes(units: Sequence[Unit]) -> list[int]:
    """Return the numbers of fitted pairs that were tried."""
    return sorted(set.intersection(*(set(unit.sizes) for unit in units))) if units else []


def verdict(
    verdict_units: Sequence[Unit], toys: Sequence[Unit], again: Sequence[Unit], openings: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Return the declared contrasts with their results; none before the seeds were opened."""
    if not declared.enough(verdict_units):
        return []
    opened = "; ".join(
        f"{entry['draws']} at {entry['opened']}, declaration {entry['declaration']}" for entry in openings
    )
    return [
        "## Verdicts, on seeds that were kept back\n",
        f"Opened once: {opened}.\n",
        verdict_text(declared.EFFECT, declared.results(verdict_units)),
        *([verdict_text(declared.BEST, declared.again_results(again))] if declared.enough(again) else []),
        *many_pairs_lines(toys),
        declared_text(declared.DECLARATION),
        *([declared_text(declared.AGAIN)] if again else []),
    ]


def many_pairs_lines(toys: Sequence[Unit]) -> list[str]:
    """Return what the kept toy networks say of eight attributes; nothing without them."""
    if not toys:
        return []
    told = ", ".join(f"{shown(name)} {estimate.text(2)}" for name, estimate in declared.with_many_pairs(toys).items())
    return [f"Eight attributes at once, of {len(toys)} kept toy networks (no claim; the range over both): {told}.\n"]
