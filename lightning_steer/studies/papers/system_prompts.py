"""Responses under system prompts, unsteered and steered by CAA's vector of myopia."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_steer import text_files
from lightning_steer.data.behaviours.examples import read_halves
from lightning_steer.report.files import write_text
from lightning_steer.report.tables import cell
from lightning_steer.statistics.kinds import Share
from lightning_steer.studies.papers.likelihood import CAA_PAIRS, CONFIGS, MODEL, OPEN, OPEN_PAIRS, vector_options
from lightning_steer.studies.papers.paper import Paper, Planned, published
from lightning_steer.studies.papers.runner import BACKBONE, Runner
from lightning_steer.studies.published.markdown import table as markdown

BEHAVIOUR = "myopia"
RESPONSES, CONFIG = "configs/responses.yaml", "configs/papers/system_prompts.yaml"
PROMPTS = Path("logs/papers/system_prompts/prompts.jsonl")
COLUMNS = ("system prompt", "strength", "responses that steering changes", "n")


def changed(path: Path) -> dict[str, Any]:
    """Return by system prompt and strength the share of responses that differ from the unsteered ones."""
    lines = [line for _, line in text_files.json_lines(path)]
    plain = {(line["system"], line["id"]): line["response"] for line in lines if line["strength"] is None}
    shares: dict[tuple[str | None, float], list[float]] = {}
    for line in lines:
        if line["strength"] is not None:
            differs = float(line["response"] != plain[line["system"], line["id"]])
            shares.setdefault((line["system"], line["strength"]), []).append(differs)
    return {json.dumps(key): Share().estimate(values)[0]._asdict() for key, values in shares.items()}


def write_prompts(data: Path) -> None:
    """Write the released prompts without their continuations."""
    released = data / OPEN_PAIRS.folder / OPEN.format(BEHAVIOUR)
    prompts = [json.dumps({"id": e.id, "prompt": e.prompt}) for e in read_halves(released, BEHAVIOUR, False)]
    write_text(PROMPTS, "".join(f"{line}\n" for line in prompts))


def options(model: str) -> list[str]:
    """Return the options that respond."""
    return [f"{BACKBONE}.llm={model}", f"--data.init_args.file={PROMPTS}"]


def plans(model: str, data: Path) -> list[Planned]:
    """Return the fit of the vector, with a test that is not run, and the responses."""
    write_prompts(data)
    return [
        ("fit the vector (a test is counted, too)", 1, CONFIGS, vector_options(model, data, BEHAVIOUR)),
        ("respond", 1, (RESPONSES, CONFIG), options(model)),
    ]


def run(models: Sequence[str], data: Path, runner: Runner) -> dict[str, Any]:
    """Fit the vector, respond, and count."""
    write_prompts(data)
    fitted = runner.run(
        "vector",
        CONFIGS,
        vector_options(models[0], data, BEHAVIOUR),
        lambda module: {"strength": module.strength},
        ("fit",),
    )
    if fitted is None:
        return {}
    result = runner.run(
        "responses",
        (RESPONSES, CONFIG),
        options(models[0]),
        lambda module: changed(module.folder / "responses.jsonl"),
        ("predict",),
        steers=False,
    )
    return result or {}


def table(results: Mapping[str, Any], models: Sequence[str]) -> list[str]:
    """Return how many responses steering changes; nothing is published to compare it with."""
    rows = []
    for key, estimate in results.items():
        system, strength = json.loads(key)
        rows.append((system or "none", f"{strength:g}", cell(estimate), estimate["n"]))
    return [
        f"{published('system_prompts')['source']} Ours: shares of responses, with 95 % intervals over prompts; the "
        "responses are in logs/papers/system_prompts/responses/responses.md.",
        "",
        *markdown(COLUMNS, rows or [("", "", "", "")]),
    ]


SYSTEM_PROMPTS = Paper(
    "system_prompts",
    "Pres et al. 2024, arXiv 2410.17245: continuations under system prompts",
    (MODEL,),
    ((RESPONSES,), ()),
    run,
    table,
    plans,
    (OPEN_PAIRS, CAA_PAIRS),
)
