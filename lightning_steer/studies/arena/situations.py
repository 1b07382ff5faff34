"""The page's prose: the answer, what to take in which situation, what surprised, and what the design does not carry.

Every sentence takes its methods and numbers from the table; none is typed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lightning_steer.statistics.intervals import mean_over_units
from lightning_steer.studies.arena import cost, declared, language, summary, toy
from lightning_steer.studies.arena.entrants import PROMPT, RANDOM, REFERENCE
from lightning_steer.studies.arena.summary import Unit

if TYPE_CHECKING:
    from lightning_steer.studies.arena.page import Standing

SHOWN = 3
"""Methods that a situation names."""
COVARIANCE = ("leace", "midsteer", "ridge", "transport", "conceptor")
"""Methods that use the rows' covariance or correlation."""


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
    """Return the methods below random directions on average, not above them by their interval, and faint on the toy."""
    return [
        name
        for name in s.closed
        if name != RANDOM
        and s.over_random[name].value < 0
        and not s.over_random[name].low > 0
        and s.toy[name].value < summary.FAINT
    ]


def answer(s: Standing, kept: Sequence[Unit], again: Sequence[Unit]) -> list[str]:
    """Return the first lines: which method, and how sure that is."""
    trained = [name for name in s.order if name in declared.TRAINED][:1]
    vector, plain = best(s, [cost.VECTOR]), best(s, [cost.VECTOR, cost.AFFINE, cost.CURVED], trained=False)
    lines = [
        f"**If you can train through the model's output: {listed([name])}.** At equal damage it reaches "
        f"{s.effect[name].text(2)} standard deviations of the margin, {s.over_reference[name].text(2)} more than the "
        f"mean difference in the same cells, mean rank {s.rank[name].text(1)} of {len(s.names)}.\n"
        for name in trained
    ]
    lines += [
        f"**As one vector, which other tools can apply: {listed(vector[:1])}**, {s.effect[vector[0]].text(2)}, mean "
        f"rank {s.rank[vector[0]].text(1)}.\n",
        f"**Without training: {listed(plain[:1])}**, mean rank {s.rank[plain[0]].text(1)}, "
        f"{s.over_reference[plain[0]].text(2)} over the mean difference{_maybe(s, plain[0])}.\n",
        f"These three were chosen by their ranks on seed {declared.SEED}, so they look better there than they are.\n",
    ]
    if declared.enough(kept):
        lines.append(
            f"On seeds that were opened once, after the claims were declared: "
            f"{declared.told(declared.EFFECT, declared.results(kept))}"
            + (f"; {declared.told(declared.BEST, declared.again_results(again))}" if declared.enough(again) else "")
            + ". Round brackets: the range over tasks, no interval.\n"
        )
    return lines


def _maybe(s: Standing, name: str) -> str:
    return ", which may be none" if not s.over_reference[name].low > 0 else ""


def text(s: Standing, kept: Sequence[Unit]) -> list[str]:
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
        "- **Must be baked.** A vector at a block's output can be, where its last linear layer has a bias or can be "
        "given one. An affine map cannot at a block's output, as here, since the residual passes beside that layer (at "
        "the output of an attention or MLP it can, which did not compete), nor what depends on a row otherwise. By "
        f"rank: {with_effect(s, best(s, [cost.VECTOR]))}.",
        "- **Must run in llama.cpp.** It adds one vector to a layer, no more; so the same, and without training: "
        f"{with_effect(s, best(s, [cost.VECTOR], trained=False))}.\n",
        "## A method that nobody should use\n",
        _useless(s, useless, kept),
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


def _useless(s: Standing, names: Sequence[str], kept: Sequence[Unit]) -> str:
    if not names:
        return "None is both below random directions and faint on the toy.\n"
    told = listed([f"{n} ({s.effect[n].text(2)} sd, {s.over_random[n].text(2)} over random directions, toy "
                   f"{s.toy[n].text(2)})" for n in names])  # fmt: skip
    seen = [name for name in names if kept and name in kept[0].effect]
    means = [f"{name} {mean_over_units([u.effect[name] for u in kept]).text(2)} sd" for name in seen]
    again = f"On the kept seeds: {listed(means)}. " if seen else ""
    return (
        f"{told}. {again}To steer from pairs a random direction that is searched as well did better on average; the "
        "verdicts say whether it does on other seeds. Methods that start from an error probe are made for the errors "
        "of labelled rows, and [the study of MERA](mera.md) says what they are worth there.\n"
    )


def surprises(s: Standing) -> list[str]:
    """Return what differs from what one would guess."""
    over = [name for name in s.closed if np.mean([u.damage[name] > summary.BUDGET for u in s.language]) > 0]
    most = max((u.damage[name], name) for u in s.language for name in s.closed)
    same = [name for name in s.closed if name != REFERENCE
            and all(abs(u.effect[name] - u.effect[REFERENCE]) < 1e-6 for u in s.language)]  # fmt: skip
    behind = [name for name in s.names if s.rank[name].value > s.rank[RANDOM].value]
    fitted = [name for name in COVARIANCE if name in s.closed]
    many = {name: _cells(s, name, "m8") for name in declared.TRAINED if name in s.closed}
    lines = [
        "## What surprised\n",
        f"- A random direction, searched as every method is, reaches {s.effect[RANDOM].text(2)} sd: a choice of "
        f"layer and strength on other pairs is worth something by itself. {len(behind)} of "
        f"{len(s.names)} have a worse mean rank than it.",
    ]
    if fitted:
        places = [s.order.index(name) + 1 for name in fitted]
        toys = [s.toy[name].value for name in fitted]
        lines.append(
            f"- What is fitted with the rows' covariance ({listed(fitted)}) has places {min(places)} to {max(places)} "
            f"on the pocket models, yet {min(toys):.2f} to {max(toys):.2f} on the toy. There 128 rows stand in 32 to "
            "64 dimensions, here about 64 in 96; whether that is the reason was not tried."
        )
    if len(many) > 1:
        told = listed([f"{name} {value:.2f}" for name, value in many.items()])
        lines.append(
            f"- What leads as one vector does not with eight attributes on the toy (one network): {told}; the mean "
            f"difference {_cells(s, REFERENCE, 'm8'):.2f}. The kept networks are below."
        )
    if same:
        lines.append(f"- {listed(same).capitalize()} is the mean difference in every cell, to six digits: it takes the "
                     "100 least and most mistaken rows, and there are fewer.")  # fmt: skip
    lines.append(
        f"- On texts that did not choose the budget nearly holds: {len(over)} of {len(s.closed)} methods exceed it in "
        f"some cell, the largest damage is {most[0]:.2f} nats per token ({listed([most[1]])})."
    )
    if PROMPT in s.names:
        none = sum(u.effect[PROMPT] == 0 for u in s.language)
        lines.append(
            f"- Positive examples in the prompt (one, two or four) reach {s.effect[PROMPT].text(2)} sd within the "
            f"budget; in {none} of {len(s.language)} cells no number of them helps within it. The pocket models were "
            "never trained to follow examples: that is no measure of a large model's prompt."
        )
    return [*lines, ""]


def _toy_rank(s: Standing, name: str) -> int:
    return sorted(s.closed, key=lambda n: -s.toy[n].value).index(name)


def limits(minutes: Sequence[float]) -> list[str]:
    """Return what the design does not carry, and what it cost."""
    scale = language.Scale()
    return [
        "## What the design does not carry\n",
        "- Two pocket models of five layers, one family, one small language; a finding here is a reason to try a "
        "method on a large model first, not a result about one.\n"
        f"- Layers {listed([str(layer) for layer in scale.layers])}, half of each method's strengths and two more near "
        f"the budget; {scale.pairs} pairs a cell (labelling tasks have a few less), three tenths of them held out, so "
        "a single cell says little.\n"
        "- Trained methods are trained on what is measured, the margin of such pairs; that they lead in it says less "
        "than the same lead of a closed form would, and they cost a backward pass of the whole model. They had "
        f"{scale.training_steps} steps on the pocket models and {toy.Scale().training_steps} on the toy, at one "
        "learning rate. No method's own settings were searched.\n"
        f"- One seed explores; {len(declared.KEPT + declared.AGAIN_SEEDS)} kept back judge the declared contrasts, "
        "on the base model, "
        "not the whole table. Tasks of one language share its grammar, so ten of them are fewer than ten.\n"
        "- Ranks compare what a search chose. A method with a smaller effect at less damage is not worse; the columns "
        "at equal effect say how it stands.\n"
        "- The prompt baseline has examples and no instruction. Gates, compositions, and methods on several layers at "
        "once did not compete; head steering shifts the heads of one layer, and on the toy, which has none, the whole "
        "row.\n",
        f"Processor time: {minutes[0]:.0f} minutes for the table, {minutes[1] + minutes[2]:.0f} for the verdicts. The "
        "longer form (`--tuned` with all tasks; more kept seeds; every layer) costs half a minute a cell.\n",
    ]
