"""refusal_direction: its choice of a direction from the scores, and the verdicts of its two judges."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_steer import text_files
from lightning_steer.statistics.dose_response import p_values
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.kinds import Change, Share
from lightning_steer.studies.published.kl_budget import CandidateDirection
from lightning_steer.studies.published.sources import table as path_of

MODELS = {"gemma-2b-it": 18, "llama-2-7b-chat-hf": 32}
"""Models whose outcomes are read, and their layers."""
PREFIX = "refusal_direction_"
NAMES = {"baseline": "no steering", "ablation": "ablation", "actadd": "addition"}
"""Of the settings, on the page."""
SETTINGS = ("baseline", "ablation", "actadd")
SCORES = ("refusal", "steering", "kl_div")
JUDGES = ("substring_matching", "llamaguard2")


class JudgedModel(NamedTuple):
    """What was released of one model."""

    name: str
    layers: int
    published: tuple[int, int]
    """Position and layer of the published direction."""
    candidates: tuple[CandidateDirection, ...]
    complied: dict[tuple[str, str], NDArray]
    """By setting and judge: ``[prompts]`` whether a harmful request was answered."""
    category: NDArray
    """``[prompts]`` number of the prompts' category."""
    harmless: dict[str, NDArray]
    """By setting: ``[prompts]`` whether a harmless request was refused, by phrases."""
    loss: dict[str, dict[str, float]]
    """By setting and text: cross-entropy in nats a token."""


def read(outcomes: Path) -> list[JudgedModel]:
    """Return the models.

    Raises:
        FileNotFoundError: a table is missing.
        ValueError: it is not what was expected.
    """
    models = []
    for name, layers in MODELS.items():
        path = path_of(outcomes, f"{PREFIX}{name}.json")
        try:
            models.append(_model(name, layers, text_files.parse_json(text_files.read(path))))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path.name} is not a record of candidates, chosen, items and loss ({error!r})") from None
    return models


def _model(name: str, layers: int, record: Mapping[str, Any]) -> JudgedModel:
    items = record["items"]
    categories = [[row["category"] for row in items[f"jailbreakbench_{setting}"]] for setting in SETTINGS]
    if categories.count(categories[0]) < len(categories):
        raise ValueError(f"{PREFIX}{name}.json: the settings have other prompts, or in another order")
    return JudgedModel(
        name,
        layers,
        (record["chosen"]["pos"], record["chosen"]["layer"]),
        tuple(
            CandidateDirection(
                candidate["position"],
                candidate["layer"],
                *(math.nan if candidate[f"{name}_score"] is None else candidate[f"{name}_score"] for name in SCORES),
            )
            for candidate in record["candidates"]
        ),
        {
            (setting, judge): np.array([row[f"is_jailbreak_{judge}"] for row in items[f"jailbreakbench_{setting}"]])
            for setting in SETTINGS
            for judge in JUDGES
        },
        np.unique(categories[0], return_inverse=True)[1],
        {
            setting: 1 - np.array([row["is_jailbreak_substring_matching"] for row in items[f"harmless_{setting}"]])
            for setting in ("baseline", "actadd")
        },
        {setting: {text: part["ce_loss"] for text, part in record["loss"][setting].items()} for setting in SETTINGS},
    )


class Paired(NamedTuple):
    """Ablation beside addition on the same prompts, by one judge."""

    ablation_alone: int
    """Prompts that are answered with ablation and not with addition."""
    addition_alone: int
    change: Estimate
    """Ablation less addition."""
    p: float
    """McNemar's exact test, two-sided."""


def paired(model: JudgedModel, judge: str, clustered: bool = False) -> Paired:
    """Return the paired comparison of ablation with addition; ``clustered`` has its interval over categories."""
    difference = model.complied["ablation", judge].astype(int) - model.complied["actadd", judge]
    sides = p_values(np.stack([difference, -difference]), True, 0.0, 1.0, None)
    return Paired(
        int((difference > 0).sum()),
        int((difference < 0).sum()),
        Change().estimate(difference, model.category if clustered else None)[0],
        min(1.0, 2 * float(sides.min())),
    )


def shares(model: JudgedModel, judge: str, clustered: bool) -> list[Estimate]:
    """Return the share of answered requests at every setting, prompts independent or in their categories."""
    columns = np.stack([model.complied[setting, judge] for setting in SETTINGS], 1)
    return Share().estimate(columns, model.category if clustered else None)


def disagreements(model: JudgedModel) -> dict[str, int]:
    """Return by setting how many answers the judges score differently."""
    first, second = JUDGES
    return {s: int((model.complied[s, first] != model.complied[s, second]).sum()) for s in SETTINGS}


def answers(model: JudgedModel) -> int:
    """Return how many answers each judge scored."""
    return sum(len(model.complied[setting, JUDGES[0]]) for setting in SETTINGS)
