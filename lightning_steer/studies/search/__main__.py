"""``python -m lightning_steer.studies.search``: search the pocket models, and compare with what is true there."""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from lightning_steer.data.pocket.behaviours import NAMES
from lightning_steer.escapes import say
from lightning_steer.report.files import write_text
from lightning_steer.selection.grid import within_budget
from lightning_steer.studies.coverage.verdicts import LEAST, upper
from lightning_steer.studies.search.resampled import Coverage, coverage
from lightning_steer.studies.search.tables import BUDGET, SettingsTable, table
from lightning_steer.workflows.fit import backbone

SEEDS = 3
HEAD = [
    "| model | behaviour | seed | n | choice | over the grid's best | over the best true effect | its true damage |",
    "|---|---|---|---|---|---|---|---|",
]
CURSE = [
    "| model | behaviour | seed | rows | judged | held-out hold | bias | width | choosing hold | bias | settings |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
]


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the options of the study."""
    parser = argparse.ArgumentParser(prog="python -m lightning_steer.studies.search", description=__doc__)
    add = parser.add_argument
    add("--models", nargs="+", default=["checkpoints/pocket/base", "checkpoints/pocket/tuned"], help="pocket models")
    add("--seeds", type=int, default=SEEDS, help="draws of the pairs")
    add("--per_topic", type=int, default=5, help="pairs for each of a behaviour's 20 topics")
    add("--rows", type=int, nargs="+", default=[12, 30], help="rows that choose, and as many that judge")
    add("--repetitions", type=int, default=1000, help="resamplings of each table")
    add("--out", type=Path, default=Path("logs/search.md"), help="where the tables go")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Search, resample, write, print."""
    options = arguments(argv)
    nearness, curse, near, failed = list(HEAD), list(CURSE), 0, 0
    for model in options.models:
        llm = backbone(model, -1).every_layer()
        for behaviour in NAMES:
            for seed in range(options.seeds):
                made = table(llm, behaviour, options.per_topic, seed)
                name = f"| {Path(model).name} | {behaviour} | {seed} |"
                nearness.append(f"{name} {_nearness(made)}")
                near += made.share_of_best >= 0.95
                for rows in options.rows:
                    for judged in made.effects:
                        result = _coverage(made, rows, options.repetitions, judged)
                        curse.append(f"{name} {rows} | {judged} | {_curse(result)}")
                        failed += upper(result.held_out.holds, result.held_out.sets) < LEAST
                say(f"{nearness[-1]} {curse[-1]}")
    count = len(nearness) - len(HEAD)
    told = (
        f"Within 5 % of the best true effect within the true budget in {near} of {count} searches. The held-out "
        f"interval fails in {failed} of {len(curse) - len(CURSE)} cells of {options.repetitions:,} resamplings."
    )
    write_text(options.out, "\n".join(["# Search\n", told, "", *nearness, "", *curse, ""]))
    say(told)
    return int(failed > 0)


def _nearness(made: SettingsTable) -> str:
    if made.chosen is None:
        return f"{made.full.rows} | none | - | - | - |"
    best = next(setting for setting in within_budget(made.full, BUDGET) if made.whole[setting])
    layer, strength = made.full.layers[made.chosen.layer], made.full.strengths[made.chosen.strength]
    share = float(made.full.effect[made.chosen] / made.full.effect[best])
    return (
        f"{made.full.rows} | layer {layer}, strength {strength:g} | {share:.3f} | "
        f"{made.share_of_best:.3f} | {float(made.true_damage[made.chosen]):.3f} |"
    )


def _coverage(made: SettingsTable, rows: int, repetitions: int, judged: str) -> Coverage:
    damage = torch.where(made.whole, made.full.damage, np.inf)
    margin = made.effects["margin_change"]
    return coverage(made.effects[judged], damage, BUDGET, rows, repetitions, column=judged, chosen_by=margin)


def _curse(result: Coverage) -> str:
    judged, other = result.held_out, result.choosing
    return (
        f"{judged.holds / judged.sets:.3f} (none {judged.none:.3f}) | {judged.bias:+.4f} | {judged.width:.3f} | "
        f"{other.holds / other.sets:.3f} | {other.bias:+.4f} | {result.settings} |"
    )


if __name__ == "__main__":
    sys.exit(main())
