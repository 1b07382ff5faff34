"""The page's prose: the answer, what to take in which situation, what surprised, and what the design does not carry.

Every sentence takes its methods and numbers from the table; none is typed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lightning_steer.studies.arena import cost, declared, summary
from lightning_steer.studies.arena.entrants import PROMPT, RANDOM, REFERENCE
from lightning_steer.studies.arena.summary import Unit

if TYPE_CHECKING:
    from lightning_steer.studies.arena.page import Standing

SHOWN = 3
"""Methods that a situation names."""
CURVED_NOTE = "what depends on each row in another way than affinely cannot be baked"


def listed(names: Sequence[str]) -> str:
    """Return names as the middle of a sentence."""
    names = [name.replace("_", " ") for name in names]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"


def with_effect(s: Standing, names: Sequence[str]) -> str:
    """Return names with their mean effects and intervals."""
    return listed([f"{name} ({s.effect[name].text(2)} sd)" for name in names])


def best(s: Standing, forms: Sequence[str], trained: bool = True) -> list[str]:
    """Return the methods of some forms by mean rank, the best first."""
    allowed = [n for n in s.order if s.form(n) in forms and (trained or n not in declared.TRAINED)]
    return allowed[:SHOWN]


def no_better_than_random(s: Standing) -> list[str]:
    """Return the methods whose interval over random directions holds 0, and whose toy mean is nearly nothing."""
    return [
        name
        for name in s.closed
        if name != RANDOM and not s.over_random[name].low > 0 and s.toy[name].value < summary.FAINT
    ]


def answer(s: Standing, kept: Sequence[Unit]) -> list[str]:
    """Return the first lines: which method, and how sure that is."""
    top, vector = s.order[0], best(s, [cost.VECTOR], trained=False)[0]
    clear = [name for name in s.order[1:] if s.rank[name].low > s.rank[top].high]
    lines = [
        f"On the seed that was looked at, {listed([top])} has the best mean rank, {s.rank[top].text(1)} of "
        f"{len(s.names)}, which is clear of {len(clear)} other methods' intervals. Of what adds one vector and is not "
        f"trained, {listed([vector])} has the best, {s.rank[vector].text(1)}; the mean difference has "
        f"{s.rank[REFERENCE].text(1)}. Those were chosen by their ranks, so they look better here than they are.\n"
    ]
    if kept:
        shown = declared.verdict_sentence(kept)
        lines.append(f"On two seeds that were opened once, after the claims were declared: {shown}\n")
    return lines


def text(s: Standing) -> list[str]:
    """Return the situations, what surprised, and the method that nobody should use."""
    few = sorted(s.closed, key=lambda name: -_mean(s, name, smallest=True))[:SHOWN]
    many = {name: _cells(s, name, "m8") for name in s.closed}
    by_many = sorted(many, key=lambda name: -many[name])[:SHOWN]
    calm = sorted(s.closed, key=lambda n: (-s.reached[n][0], -s.reached[n][2] / max(s.reached[n][1], 1)))[:SHOWN]
    size = min(summary_sizes(s), default=0)
    useless = no_better_than_random(s)
    spoken = [unit for unit in s.language if unit.sizes]
    return [
        "## By situation\n",
        "Methods stand in the order of their means; where intervals in the table overlap, the order is not known.\n",
        f"- **Few pairs.** With {size} fitted pairs the toy's largest means are those of "
        f"{listed([f'{n} ({_mean(s, n, smallest=True):.2f})' for n in few])}; the mean difference has "
        f"{_mean(s, REFERENCE, smallest=True):.2f}. {_few_spoken(s, spoken)}",
        f"- **Many attributes at once.** With eight attributes of one toy network: "
        f"{listed([f'{n} ({many[n]:.2f})' for n in by_many])}; the mean difference {many[REFERENCE]:.2f}. One network "
        "and two target sets, so differences of some hundredths mean nothing.",
        f"- **Must not disturb.** At an equal effect of {summary.LEVEL:g} sd: "
        + listed([f"{n} (reaches it in {s.reached[n][0]} of {len(s.language)} cells; less damage there than the mean "
                  f"difference in {s.reached[n][2]} of {s.reached[n][1]})" for n in calm]) + ".",
        f"- **Must be baked.** Vectors and affine maps can be, at a layer whose last linear part has a bias to take "
        f"them; {CURVED_NOTE}. By rank: {with_effect(s, best(s, [cost.VECTOR, cost.AFFINE]))}.",
        "- **Must run in llama.cpp.** It adds one vector to a layer, no more. By rank: "
        f"{with_effect(s, best(s, [cost.VECTOR]))}; not trained: "
        f"{with_effect(s, best(s, [cost.VECTOR], trained=False))}.\n",
        "## A method that nobody should use\n",
        (f"{listed(useless)}: not above random directions on the pocket models (the interval of the paired "
         f"difference holds 0 or lies below), and below {summary.FAINT:g} on the toy. That holds for steering from "
         "pairs, at these settings: methods of the MERA family are made for errors of labelled rows, where "
         "[the study of MERA](mera.md) finds what they are worth.\n" if useless else "None is below both bounds.\n"),
        *surprises(s),
    ]  # fmt: skip


def _few_spoken(s: Standing, spoken: Sequence[Unit]) -> str:
    if not spoken:
        return "No cell on a pocket model was run with fewer pairs."
    few, many = min(spoken[0].sizes), max(spoken[0].sizes)
    means = {n: [float(np.mean([u.sizes[size][n] for u in spoken])) for size in (few, many)]
             for n in s.closed if n in spoken[0].sizes[few]}  # fmt: skip
    names = sorted(means, key=lambda n: -means[n][0])[:SHOWN]
    told = listed([f"{n} ({means[n][0]:.2f} sd, with {many} pairs {means[n][1]:.2f})" for n in names])
    return f"With {few} on the behaviours ({len(spoken)} cells; closed forms alone): {told}."


def _mean(s: Standing, name: str, smallest: bool) -> float:
    have = summary_sizes(s)
    if not have:
        return 0.0
    size = min(have) if smallest else max(have)
    values = [unit.sizes[size][name] for unit in s.toys if name in unit.sizes[size]]
    return float(np.mean(values)) if values else -1.0


def _cells(s: Standing, name: str, end: str) -> float:
    values = [unit.effect[name] for unit in s.toys if unit.cluster.endswith(end)]
    return float(np.mean(values)) if values else 0.0


def summary_sizes(s: Standing) -> list[int]:
    """Return the numbers of pairs that all toy cells were run with."""
    return sorted(set.intersection(*(set(unit.sizes) for unit in s.toys))) if s.toys else []


def surprises(s: Standing) -> list[str]:
    """Return what differs from what one would guess."""
    disagree = sorted(s.closed, key=lambda n: _toy_rank(s, n) - s.order.index(n))
    up, down = disagree[0], disagree[-1]
    over = [name for name in s.closed if np.mean([u.damage[name] > summary.BUDGET for u in s.language]) > 0]
    worst = max(over, key=lambda n: max(u.damage[n] for u in s.language)) if over else None
    same = [name for name in s.closed if name != REFERENCE
            and all(abs(u.effect[name] - u.effect[REFERENCE]) < 1e-6 for u in s.language)]  # fmt: skip
    lines = [
        "## What surprised\n",
        f"- The toy and the pocket models do not agree: {listed([down])} has place {s.order.index(down) + 1} on the "
        f"pocket models and {_toy_rank(s, down) + 1} on the toy, {listed([up])} {s.order.index(up) + 1} and "
        f"{_toy_rank(s, up) + 1}.",
        f"- {listed(same).capitalize()} {'is' if len(same) == 1 else 'are'} the mean difference in every cell, to six "
        "digits."
        if same
        else "- No other method is the mean difference in every cell.",
        f"- A budget that holds on the texts that chose is exceeded on others: by {len(over)} methods in some cell"
        + (
            f", most by {listed([worst])}, {max(u.damage[worst] for u in s.language):.2f} nats per token"
            if worst
            else ""
        )
        + ".",
    ]
    if PROMPT in s.names:
        lines.append(
            f"- Positive examples in the prompt reach {s.effect[PROMPT].text(2)} sd within the budget (one, two or "
            f"four of them, which the pocket models were never trained to follow): a small model's prompt is no "
            f"measure of a large one's."
        )
    return [*lines, ""]


def _toy_rank(s: Standing, name: str) -> int:
    return sorted(s.closed, key=lambda n: -s.toy[n].value).index(name)


def limits(s: Standing, kept: Sequence[Unit], minutes: Sequence[float]) -> list[str]:
    """Return what the design does not carry, and what it cost."""
    return [
        "## What the design does not carry\n",
        "- Two pocket models of five layers, one family, one small language; a finding here is a reason to try a "
        "method on a large model first, not a result about one.\n"
        "- Two layers (1 and 3), one in each half, and about seven strengths a layer; 24 held-out pairs a cell, so a "
        "single cell says little.\n"
        "- Trained methods had 24 steps on the pocket models and 150 on the toy, one learning rate each, no choice of "
        "rank or penalty: with more they can only be chosen better. No method's own settings were searched.\n"
        "- One seed explores; two kept back judge the declared contrasts alone, on the base model, not the whole "
        "table. Tasks of one language share its grammar, so ten of them are fewer than ten.\n"
        "- Ranks compare what a search chose. A method with a smaller effect at less damage is not worse; the columns "
        "at equal effect say how it stands.\n"
        "- The prompt baseline has examples and no instruction; gates, compositions and methods on several layers at "
        "once did not compete.\n",
        f"Processor time: {minutes[0]:.0f} minutes for the table, {minutes[1]:.0f} for the verdicts. The longer form "
        "(`--tuned` with all tasks, more seeds in `declared.py`) costs half a minute a cell.\n",
    ]
