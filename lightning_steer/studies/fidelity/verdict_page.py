"""The page's sections on declared contrasts: declaration, openings, verdicts, positive control, coverage."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lightning_steer.statistics.claims import found_again
from lightning_steer.statistics.intervals import mean_over_units
from lightning_steer.statistics.kinds import Share
from lightning_steer.studies.declaration import declared_text, verdict_text
from lightning_steer.studies.fidelity import declared, layers, same_choice
from lightning_steer.studies.fidelity.settings import BIAS_TYPES, NARROW
from lightning_steer.studies.fidelity.verdict import STRENGTHS

Parts = Mapping[str, Mapping[str, Any]]
LEAST = 0.93
"""A cell fails if the 99 % interval of its coverage lies entirely below."""
SCOPE = (
    "A bias type has 48 target terms, and no claim is about other terms. 24 of them are judged in seed 1. All 24 "
    "had been used in seed 0, which gave the layer, the strength and the directions of the claims: of the towns 11 "
    "had been used for fitting, 3 for selecting and 10 for judging; of the trades 9, 3 and 12. Only the sentences "
    "are new. So the declarations' "
    '"other target terms" is too wide, and p-values assume too much: that the terms '
    "are drawn from many. The two questions about narrow models speak about other trainings from this base model. "
    "Nothing here speaks about other languages, sizes or base models."
)
"""Scope of the verdicts: narrower than the declaration, which remains as it was opened."""
REDRAWN = (
    "Found is the share of 1,000 sets of terms in which the pattern is shown; each set redraws as many terms from "
    "those that were tested. This restates their p-value and is no power for other terms. For 24 normal values "
    'without any effect that pass at p < .025 by chance, the pattern is "found" in .68 of such sets on average; '
    "with a mean of 1.2 standard deviations, in all."
)
"""Meaning of "found" for a positive control."""
SIGNS = (
    "A sign test over the five trainings would show none of these claims: after Holm's correction its smallest p "
    "is .125 for what narrow tuning lost and .0625 for the dose. The p-values are of Student's t, which assumes "
    "that trainings are normally distributed."
)
"""Caveat: how little five trainings show without a normal law."""
SIDED = ("stereotype_change", "unrelated_change", "pattern_nats")
SIDES = (
    "The contrasts are of a difference: the stereotype's change less the unrelated sentence's. A difference below "
    "0 does not say that the stereotype falls: the unrelated sentence may rise. Both changes were tabulated after "
    "the opening."
)
"""Caveat: which side of the pattern moves."""
MATCHED = "Random directions were given the same choice of layer and strength afterwards"
"""Note on the fidelity at a chosen dose: the control is not a declared one."""


def text(parts: Parts, openings: Sequence[Mapping[str, Any]]) -> str:
    """Return the page's first sections; empty if no verdict was run."""
    sections = []
    if any(name.startswith("verdict-") for name in parts):
        results = declared.results(parts)
        sections = [
            "## Verdicts\n",
            f"{SCOPE}\n",
            *(verdict_text(question, results[question.name]) for question in declared.DECLARATION.questions),
            *(
                verdict_text(q, declared.control(parts["control-again"]))
                for q in declared.AGAIN.questions
                if "control-again" in parts
            ),
            sides(parts),
            control(parts),
            narrow_models(parts),
            same_choice.text(parts),
            layers.lost(parts),
            layers.explained(parts),
            declared_text(declared.DECLARATION),
            declared_text(declared.AGAIN),
            *(
                f"Opened {opening['opened']} under declaration {opening['declaration']}: {opening['draws']}.\n"
                for opening in openings
            ),
        ]
    return "\n".join([*sections, coverage(parts)])


def sides(parts: Parts) -> str:
    """Return the pattern's two sides in base, tuned and narrow models, and its sign at all layers and strengths."""
    terms = len(declared.rows(parts["verdict-base"], "own", BIAS_TYPES[0], "pattern_nats"))
    lines = [
        f"Both sides of the pattern, nats a token, layer {declared.LAYER}, strength 1, own vector; intervals over "
        f"{terms} terms; the last column counts layers x strengths in which the difference is below 0 (its interval "
        f"too). {SIDES}\n",
        "| both sides | bias type | stereotype's change | unrelated sentence's change | difference | below 0 |",
        f"|{'---|' * 6}",
    ]
    for model, names in (("base", ("base",)), ("tuned", ("tuned",)), ("narrow, mean of five", NARROW)):
        for kind in BIAS_TYPES:
            own = [parts[f"verdict-{name}"]["own"][kind]["rows"] for name in names]
            at_strength_1, everywhere = (
                [
                    np.mean([rows[str(declared.LAYER)][measure][declared.ONE] for rows in own], axis=0)
                    for measure in SIDED
                ],
                np.concatenate([np.mean([rows[layer]["pattern_nats"] for rows in own], axis=0) for layer in own[0]]),
            )
            estimates = [mean_over_units(units) for units in everywhere]
            count = f"{sum(e.value < 0 for e in estimates)} ({sum(e.high < 0 for e in estimates)}) of {len(estimates)}"
            cells = [str(mean_over_units(column)) for column in at_strength_1]
            lines.append(f"| {model} | {kind} | {' | '.join(cells)} | {count} |")
    return "\n".join(lines) + "\n"


def control(parts: Parts) -> str:
    """Return how often the planted pattern is found, by log-probabilities and by shares, in redrawn sets of terms."""
    lines = [f"Positive controls. {REDRAWN}\n",
             "| control | bias type | pattern, nats a token | found | pattern, shares | found |",
             f"|{'---|' * 6}"]  # fmt: skip
    for name, part in ((name, parts[name]) for name in ("verdict-planted", "control-again") if name in parts):
        for kind in BIAS_TYPES:
            cells = [{"verdict-planted": "first", "control-again": "again"}[name], kind]
            for measure in ("pattern_nats", "pattern_shares"):
                units = declared.rows(part, "own", kind, measure)
                cells += [f"{units.mean():.3f}", f"{found_again(units, 0, len(BIAS_TYPES)):.0%}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def narrow_models(parts: Parts) -> str:
    """Return the table of all narrow models, by training seed."""
    lines = [
        "Narrow models by seed of training, mean over both bias types; margins in nats a token at layer "
        f"{declared.LAYER}, strength 1; chosen: layer and strength (up to {STRENGTHS[-1]:g}) by selecting terms. "
        f"{MATCHED}. {SIGNS}\n",
        "| seed | own vector, length | base model's, length | margin, own vector | margin, base model's vector "
        "| margin in the base model, this vector | own vector chosen: towns, trades | fidelity "
        "| base model's chosen | fidelity |",
        f"|{'---|' * 10}",
    ]
    for name in NARROW:
        part, cells = parts[f"verdict-{name}"], [name[7:]]
        for vector in ("own", "base"):
            lengths = [part[vector][kind]["norm"][str(declared.LAYER)] for kind in BIAS_TYPES]
            cells.append(f"{np.mean(lengths):.2f}")
        for vector in ("own", "base", "in base"):
            rows = [declared.rows(part, vector, kind, "margin_change") for kind in BIAS_TYPES]
            cells.append(f"{np.mean(rows):.4f}")
        for vector in ("own", "base"):
            doses = {kind: declared.chosen(part[vector][kind]) for kind in BIAS_TYPES}
            cells.append("; ".join(f"{layer}, {STRENGTHS[i]:g}" for layer, i in doses.values()))
            moved = [declared.rows(part, vector, kind, "fidelity", *doses[kind]).mean() for kind in BIAS_TYPES]
            cells.append(f"{np.mean(moved):.3f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def coverage(parts: Parts) -> str:
    """Return how often reported intervals contain the true value over terms that they did not see."""
    cells = [(part, name, figure) for part_name, part in parts.items() if part_name.startswith("truth-")
             for name, figures in part["fresh"]["held"].items() for figure in figures]  # fmt: skip
    if not cells:
        return ""
    fresh = cells[0][0]["fresh"]
    lines = [
        "## The report against the truth about all terms that the vector was not fitted to\n",
        f"{fresh['sets']:,} reports a cell; each draws {fresh['terms']} terms with replacement from {fresh['of']} "
        "that the vector was not fitted to, with sentences and unrelated words of its own. True: the mean over all of "
        "these terms, sentences and words.\n",
        "| arm | bias type | measure | strength | true | interval holds it | mean width |",
        f"|{'---|' * 7}",
    ]
    failed, lowest = 0, 1.0
    for part, name, figure in cells:
        share = figure["inside"] / fresh["sets"]
        row = np.zeros(fresh["sets"])
        row[: figure["inside"]] = 1
        failed += Share().estimate(row)[0].high < LEAST
        lowest = min(lowest, share)
        row_head = f"{part['arm']} | {part['kind']} | {name} | {figure['strength']:g}"
        lines.append(f"| {row_head} | {figure['true']:.4f} | {share:.4f} | {figure['width']:.4f} |")
    lines.append(
        f"\n{len(cells) - failed} of {len(cells)} cells hold (a cell fails whose coverage, its interval included, lies "
        f"below {LEAST:g}); the least is {lowest:.4f}.\n"
    )
    return "\n".join(lines)
