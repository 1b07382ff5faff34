"""``python -m lightning_steer.studies.published.clones CLONES OUTCOMES``: tables of outcomes from clones.

Reads ``CLONES/AlphaSteer``, ``CAA``, ``CAA_Dynamic`` and ``refusal_direction`` as they are published, those that are
there, and writes probabilities, scores and verdicts: no prompt and no answer goes into a table.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from lightning_steer.escapes import say
from lightning_steer.report.files import finite, write_text
from lightning_steer.studies.published import alphasteer_clone, answer_clones, refusal_direction
from lightning_steer.studies.published.clone_files import part_of, read_json, rows_of


def refusal_direction_tables(clone: Path) -> dict[str, str]:
    """Return a record for each model, by file name."""
    records = {model: refusal_direction_record(clone, model) for model in refusal_direction.MODELS}
    return {
        f"{refusal_direction.PREFIX}{model}.json": json.dumps(finite(record), indent=1, allow_nan=False) + "\n"
        for model, record in records.items()
    }


READERS = {
    "AlphaSteer": alphasteer_clone.tables,
    "CAA": answer_clones.caa_tables,
    "CAA_Dynamic": answer_clones.caa_dynamic_tables,
    "refusal_direction": refusal_direction_tables,
}
"""By the name of a clone's folder: what returns its tables, by file name."""


def refusal_direction_record(clone: Path, model: str) -> dict[str, Any]:
    """Return the record of one model.

    Raises:
        FileNotFoundError: a file of the run is missing.
        ValueError: a file is not what was expected.
    """
    run = clone / "pipeline" / "runs" / model
    scores = run / "select_direction" / "direction_evaluations.json"
    names = ("position", "layer", "refusal_score", "steering_score", "kl_div_score")
    columns = ("category", *(f"is_jailbreak_{judge}" for judge in refusal_direction.JUDGES))
    items = {}
    for prompts in (
        "harmless_baseline",
        "harmless_actadd",
        *(f"jailbreakbench_{s}" for s in refusal_direction.SETTINGS),
    ):
        path = run / "completions" / f"{prompts}_evaluations.json"
        verdicts = rows_of(part_of(read_json(path), "completions", path), path)
        items[prompts] = [{name: row[name] for name in columns if name in row} for row in verdicts]
    losses = {s: _losses(run / "loss_evals" / f"{s}_loss_eval.json") for s in refusal_direction.SETTINGS}
    chosen = run / "direction_metadata.json"
    return {
        "model": model,
        "chosen": {name: part_of(read_json(chosen), name, chosen) for name in ("pos", "layer")},
        "candidates": [
            {name: part_of(row, name, scores) for name in names} for row in rows_of(read_json(scores), scores)
        ],
        "items": items,
        "loss": losses,
    }


def _losses(path: Path) -> dict[str, dict[str, float]]:
    by_text = read_json(path)
    if not isinstance(by_text, dict):
        raise ValueError(f"{path.name} holds no losses by text, as the repository writes it")
    return {text: {"ce_loss": part_of(part, "ce_loss", path)} for text, part in by_text.items()}


def main(argv: list[str] | None = None) -> int:
    """Read clones and write tables; a file that is missing or wrong ends it with one sentence and exit code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m lightning_steer.studies.published.clones", description="Tables of outcomes from clones."
    )
    parser.add_argument("clones", type=Path, help=f"the folder that holds clones called {', '.join(READERS)}")
    parser.add_argument("outcomes", type=Path, help="the folder that the tables go to")
    options = parser.parse_args(argv)
    try:
        present = [name for name in READERS if (options.clones / name).is_dir()]
        if not present:
            raise FileNotFoundError(f"{options.clones} holds no clone of {', '.join(READERS)}: name its folder so")
        tables = {name: text for clone in present for name, text in READERS[clone](options.clones / clone).items()}
        for name, text in tables.items():
            write_text(options.outcomes / name, text)
    except (OSError, ValueError) as error:
        say(f"lightning_steer: {' '.join(str(error).split())}", error=True)
        return 2
    say(f"Wrote {len(tables)} tables of {', '.join(present)} to {options.outcomes}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
