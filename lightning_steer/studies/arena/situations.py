"""The page's prose: the answer, what to take in which situation, and what surprised.

Every sentence takes its methods and numbers from the table; none is typed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lightning_steer.statistics.intervals import mean_over_units
from lightning_steer.studies.arena import cost, declared, summary
from lightning_steer.studies.arena.entrants import PROMPT, RANDOM, REFERENCE
from lightning_steer.studies.arena.summary import Unit
from lightning_steer.studies.declaration import verdicts

if TYPE_CHECKING:
    from lightning_steer.studies.arena.page import Standing

SHOWN = 3
"""Methods that a situation names."""
COVARIANCE = ("leace", "leace_by_value", "midsteer", "ridge", "transport", "conceptor")
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


def _at_budget(s: Standing, name: str) -> str:
    """Return which untrained method is ahead of the named one at the budget exactly, if one is."""
    untrained = [other for other in s.closed if other not in declared.TRAINED]
    ahead = max(untrained, key=lambda other: s.at_budget[other].value)
    if ahead == name:
        return ""
    values = [f"{listed([each])} ({s.at_budget[each].text(2)} sd)" for each in (ahead, name)]
    return f" At the budget exactly, {values[0]} is ahead of {values[1]}; a difference was not tested."


def answer(s: Standing, verdict_units: Sequence[Unit], again: Sequence[Unit]) -> list[str]:
    """Return the first lines: which method, and how sure that is."""
    trained = [name for name in s.order if name in declared.TRAINED][:1]
    vector, plain = best(s, [cost.VECTOR]), best(s, [cost.VECTOR, cost.AFFINE, cost.CURVED], trained=False)
    lines = [
        f"**If you can train through the model's output, take {listed([name])}.** Within the budget of damage it moves "
        f"the margin (positive less negative continuation) by {s.effect[name].text(2)} standard deviations (sd). That "
        f"is {s.over_reference[name].text(2)} more than the mean difference. Its mean rank is "
        f"{s.rank[name].text(1)} of {len(s.names)}.\n"
        for name in trained
    ]
    lines += [
        f"**If another tool must apply it, as one vector, take {listed(vector[:1])}**: {s.effect[vector[0]].text(2)} "
        f"sd, mean rank {s.rank[vector[0]].text(1)}.\n",
        f"**Without training, take {listed(plain[:1])}**: mean rank {s.rank[plain[0]].text(1)}, "
        f"{s.over_reference[plain[0]].text(2)} sd more than the mean difference{_maybe(s, plain[0])}."
        f"{_at_budget(s, plain[0])}\n",
        f"These three were chosen by their ranks on seed {declared.SEED}, the seed of the table. A winner that is "
        "chosen from a table looks better in it than it is.\n",
        "A name here is that of a file in `configs/methods`: learned vector is `learned_vector.yaml`. `steer --method` "
        "takes the class in that file (`LearnedVector`); `fit --config` takes the file with its settings.\n",
    ]
    if declared.enough(verdict_units):
        told = declared.findings(declared.EFFECT, declared.results(verdict_units))
        if declared.enough(again):
            told += f"; {declared.findings(declared.BEST, declared.again_results(again))}"
        lines.append(
            "Other seeds were kept back for a test. They were used once, after the claims below had been declared. A "
            "claim is shown if its p-value, corrected by Holm, is at most .05. The numbers are differences of effects; "
            "round brackets hold their range over tasks, which is no interval. *A random direction* is one and the "
            "same in all ten tasks, so these claims say nothing of other directions. (It is the first of three; the "
            "table below has the mean of all three.) The kept seeds draw new pairs of the same ten tasks, so the "
            "claims say nothing of other tasks either. Damage is within one budget, not equal.\n\n- "
            + told.replace("; ", "\n- ")
            + "\n"
        )
    return lines


def _maybe(s: Standing, name: str) -> str:
    return ", which may be none" if not s.over_reference[name].low > 0 else ""


def text(s: Standing, verdict_units: Sequence[Unit]) -> list[str]:
    """Return the situations, what surprised, and the method that nobody should use."""
    few = sorted(s.closed, key=lambda name: -_mean(s, name, smallest=True))[:SHOWN]
    with_many = {name: _cells(s, name, "m8") for name in s.closed}
    by_many = sorted(with_many, key=lambda name: -with_many[name])[:SHOWN]
    calm = sorted(s.closed, key=lambda n: (-s.reached[n][0], -s.reached[n][2] / max(s.reached[n][1], 1)))[:SHOWN]
    size = min(summary_sizes(s), default=0)
    useless = no_better_than_random(s)
    spoken = [unit for unit in s.language if unit.sizes]
    return [
        "## By situation\n",
        "Methods are sorted by their means. Where intervals in the table overlap, the order is not known.\n",
        f"- **Few pairs.** With {size} fitted pairs the largest means on toy networks are those of "
        f"{listed([f'{n} ({_mean(s, n, smallest=True):.2f})' for n in few])}; the mean difference has "
        f"{_mean(s, REFERENCE, smallest=True):.2f}. {_few_spoken(s, spoken)}",
        f"- **Many attributes at once.** With eight attributes of one toy network: "
        f"{listed([f'{n} ({with_many[n]:.2f})' for n in by_many])}; the mean difference {with_many[REFERENCE]:.2f}. "
        "One network and two sets of targets: differences of a few hundredths mean nothing.",
        f"- **Must not disturb.** At an equal effect of {summary.LEVEL:g} sd: "
        + listed([f"{n} (reaches it in {s.reached[n][0]} of {len(s.language)} cells; less damage there than the mean "
                  f"difference in {s.reached[n][2]} of {s.reached[n][1]})" for n in calm]) + ".",
        "- **Must be in the weights** (`export --bake`). A vector at a block's output can be, if the block's last "
        "linear "
        "layer has a bias or can be given one. An affine map cannot: the residual connection passes that layer by, so "
        "the layer's weights cannot change it. (At the output of an attention or MLP an affine map can be; that was "
        "not compared here.) A curved shift cannot. So take a vector; the best by rank: "
        f"{with_effect(s, best(s, [cost.VECTOR]))}.",
        "- **Must run in llama.cpp.** It adds one vector to a layer, no more. So take one of the same vectors; without "
        "training: "
        f"{with_effect(s, best(s, [cost.VECTOR], trained=False))}.\n",
        "## What a random direction beats\n",
        _useless(s, useless, verdict_units),
        *surprises(s),
    ]  # fmt: skip


def _few_spoken(s: Standing, spoken: Sequence[Unit]) -> str:
    if not spoken:
        return "No cell on a pocket model was run with fewer pairs."
    few, largest = min(spoken[0].sizes), max(spoken[0].sizes)
    means = {n: [float(np.mean([u.sizes[size][n] for u in spoken])) for size in (few, largest)]
             for n in s.closed if n in spoken[0].sizes[few]}  # fmt: skip
    names = sorted(means, key=lambda n: -means[n][0])[:SHOWN]
    told = listed([f"{n} ({means[n][0]:.2f} sd, with {largest} pairs {means[n][1]:.2f})" for n in names])
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


def _useless(s: Standing, names: Sequence[str], verdict_units: Sequence[Unit]) -> str:
    if not names:
        return "No method is both below a random direction here and without effect on the toy networks.\n"
    told = listed([f"{n} ({s.effect[n].text(2)} sd, {s.over_random[n].text(2)} less a random direction, toy "
                   f"{s.toy[n].text(2)})" for n in names])  # fmt: skip
    seen = [name for name in names if verdict_units and name in verdict_units[0].effect]
    means = [f"{name} {mean_over_units([u.effect[name] for u in verdict_units]).text(2)} sd" for name in seen]
    again = f"On the kept seeds: {listed(means)}. " if seen else ""
    return (
        f"Below a random direction, and below {summary.FAINT:g} on the toy: {told}. {again}A random direction, with "
        f"layer and strength searched in the same way, did better on seed {declared.SEED} on average."
        f"{_shown_again(names, verdict_units)} Methods that start from an error probe are made for "
        "another task, the errors of labelled rows; [the study of MERA](mera.md) says what they are worth there.\n"
    )


def _shown_again(names: Sequence[str], verdict_units: Sequence[Unit]) -> str:
    """Return whether the verdicts show the lead of random directions over these methods."""
    if not declared.enough(verdict_units):
        return ""
    shown = {contrast.name: shown for contrast, *_, shown in verdicts(declared.EFFECT, declared.results(verdict_units))}
    told = [
        f"{'shown' if shown[claim] else 'not shown'} for {second.replace('_', ' ')}"
        for claim, (first, second) in declared.PAIRS.items()
        if first == RANDOM and second in names
    ]
    return f" On the kept seeds its lead is {', '.join(told)}." if told else ""


def surprises(s: Standing) -> list[str]:
    """Return what differs from what one would guess."""
    over = [name for name in s.closed if np.mean([u.damage[name] > summary.BUDGET for u in s.language]) > 0]
    most = max((u.damage[name], name) for u in s.language for name in s.closed)
    same = [name for name in s.closed if name != REFERENCE
            and all(abs(u.effect[name] - u.effect[REFERENCE]) < 1e-6 for u in s.language)]  # fmt: skip
    behind = [name for name in s.names if s.rank[name].value > s.rank[RANDOM].value]
    fitted = [name for name in COVARIANCE if name in s.closed]
    with_many = {name: _cells(s, name, "m8") for name in declared.TRAINED if name in s.closed}
    lines = [
        "## What surprised\n",
        f"- A random direction, searched as every method is, reaches {s.effect[RANDOM].text(2)} sd: the choice of "
        f"layer and strength alone has some effect. {len(behind)} of {len(s.names)} methods have a worse mean rank.",
    ]
    if fitted:
        places = [s.order.index(name) + 1 for name in fitted]
        toys = [s.toy[name].value for name in fitted]
        lines.append(
            f"- Methods that use the rows' covariance ({listed(fitted)}) stand at places {min(places)} to "
            f"{max(places)} of the table on the pocket models, yet reach {min(toys):.2f} to "
            f"{max(toys):.2f} on the toy. The toy has 128 rows in 32 to 64 "
            "dimensions, a pocket model about 64 in 96. Whether that is the reason was not tried."
        )
    if len(with_many) > 1:
        told = listed([f"{name} {value:.2f}" for name, value in with_many.items()])
        lines.append(
            f"- Trained methods with eight attributes at once on the toy (one network): {told}; the mean difference "
            f"{_cells(s, REFERENCE, 'm8'):.2f}. The kept networks are below."
        )
    if same:
        lines.append(f"- {listed(same).capitalize()} equals the mean difference in every cell, to six digits: it uses "
                     "the 100 rows with the least and the 100 with the largest error, and here there are fewer rows, "
                     "so it uses all.")  # fmt: skip
    lines.append(
        f"- On texts that played no part in the choice the budget nearly holds: {len(over)} of {len(s.closed)} methods "
        f"(all but the prompt) exceed it in some cell. The largest damage is {most[0]:.2f} nats per token "
        f"({listed([most[1]])})."
    )
    if PROMPT in s.names:
        none = sum(u.effect[PROMPT] == 0 for u in s.language)
        lines.append(
            f"- Positive examples in the prompt (one, two or four) reach {s.effect[PROMPT].text(2)} sd within the "
            f"budget; in {none} of {len(s.language)} cells no number of them helps within it. The pocket models were "
            "never trained to follow examples, so this says nothing about prompting a large model."
        )
    return [*lines, ""]
