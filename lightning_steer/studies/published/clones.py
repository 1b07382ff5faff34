"""``python -m lightning_steer.studies.published.clones CLONES OUTCOMES``: tables of outcomes from clones.

Reads ``CLONES/CAA_Dynamic`` and ``CLONES/refusal_direction`` as they are published, and writes probabilities, scores
and verdicts: no prompt and no answer goes into a table. The tables of AlphaSteer and of CAA are not made here.
"""

import argparse
import csv
import io
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_steer import text_files
from lightning_steer.escapes import say
from lightning_steer.report.files import finite, write_text
from lightning_steer.studies.published import caa_dynamic, refusal_direction

RESULT = re.compile(
    r"results_layer=(?P<layer>\d+)_multiplier=(?P<multiplier>-?\d+(?:\.\d+)?)_behavior=(?P<behaviour>[\w-]+)"
    r"_type=ab_use_base_model=False_model_size=7b\.json"
)
"""Of the chat model with 7 billion parameters; vectors of weighted layers and other sizes have other names."""


def caa_dynamic_table(clone: Path, behaviour: str) -> str:
    """Return the table of one behaviour as CSV.

    Raises:
        FileNotFoundError: the clone has no results of this behaviour.
        ValueError: a file is not what was expected.
    """
    named = [(RESULT.fullmatch(path.name), path) for path in (clone / "results" / behaviour).glob("*.json")]
    found = [(int(m["layer"]), float(m["multiplier"]), path) for m, path in named if m and m["behaviour"] == behaviour]
    if not found:
        raise FileNotFoundError(
            f"{clone} has no file results/{behaviour}/results_layer=...: give a clone of CAA_Dynamic"
        )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(caa_dynamic.COLUMNS)
    for layer, multiplier, path in sorted(found):
        for item, row in enumerate(_rows(_json(path), path)):
            try:
                matching = str(row["answer_matching_behavior"]).strip().strip("()")
                probabilities = [f"{float(row[name]):.6f}" for name in ("a_prob", "b_prob")]
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path.name}, item {item}: no letter and probabilities ({error!r})") from None
            writer.writerow((item, layer, multiplier, matching, *probabilities))
    return text.getvalue()


def refusal_direction_record(clone: Path, model: str) -> dict[str, Any]:
    """Return the record of one model.

    Raises:
        FileNotFoundError: a file of the run is missing.
        ValueError: a file is not what was expected.
    """
    run = clone / "pipeline" / "runs" / model
    scores = run / "select_direction" / "direction_evaluations.json"
    names = ("position", "layer", "refusal_score", "steering_score", "kl_div_score")
    kept = ("category", *(f"is_jailbreak_{judge}" for judge in refusal_direction.JUDGES))
    items = {}
    for prompts in (
        "harmless_baseline",
        "harmless_actadd",
        *(f"jailbreakbench_{s}" for s in refusal_direction.SETTINGS),
    ):
        path = run / "completions" / f"{prompts}_evaluations.json"
        verdicts = _rows(_part(_json(path), "completions", path), path)
        items[prompts] = [{name: row[name] for name in kept if name in row} for row in verdicts]
    losses = {s: _losses(run / "loss_evals" / f"{s}_loss_eval.json") for s in refusal_direction.SETTINGS}
    chosen = run / "direction_metadata.json"
    return {
        "model": model,
        "chosen": {name: _part(_json(chosen), name, chosen) for name in ("pos", "layer")},
        "candidates": [{name: _part(row, name, scores) for name in names} for row in _rows(_json(scores), scores)],
        "items": items,
        "loss": losses,
    }


def _losses(path: Path) -> dict[str, dict[str, float]]:
    by_text = _json(path)
    if not isinstance(by_text, dict):
        raise ValueError(f"{path.name} holds no losses by text, as the repository writes it")
    return {text: {"ce_loss": _part(part, "ce_loss", path)} for text, part in by_text.items()}


def _json(path: Path) -> Any:
    try:
        return text_files.parse_json(text_files.read(path))
    except ValueError as error:
        raise ValueError(f"{path.name} is not JSON ({error})") from None


def _rows(value: Any, path: Path) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise ValueError(f"{path.name} holds no list of items, as the repository writes it")
    return value


def _part(value: Any, name: str, path: Path) -> Any:
    if not isinstance(value, Mapping) or name not in value:
        raise ValueError(f"{path.name} has no {name!r}, as the repository writes it")
    return value[name]


def main(given: list[str] | None = None) -> int:
    """Read clones and write tables; a file that is missing or wrong ends it with one sentence and exit code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m lightning_steer.studies.published.clones", description="Tables of outcomes from clones."
    )
    parser.add_argument("clones", type=Path, help="the folder that holds CAA_Dynamic and refusal_direction")
    parser.add_argument("outcomes", type=Path, help="the folder that the tables go to")
    options = parser.parse_args(given)
    try:
        tables = {
            f"{caa_dynamic.PREFIX}{name}.csv": caa_dynamic_table(options.clones / "CAA_Dynamic", name)
            for name in caa_dynamic.BEHAVIOURS
        }
        for model in refusal_direction.MODELS:
            record = refusal_direction_record(options.clones / "refusal_direction", model)
            tables[f"{refusal_direction.PREFIX}{model}.json"] = (
                json.dumps(finite(record), indent=1, allow_nan=False) + "\n"
            )
        for name, text in tables.items():
            write_text(options.outcomes / name, text)
    except (OSError, ValueError) as error:
        say(f"lightning_steer: {' '.join(str(error).split())}", error=True)
        return 2
    say(f"Wrote {len(tables)} tables to {options.outcomes}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
