"""refusal_direction's two judges: how far apart they see the effect, and which verdicts that turns."""

import csv
import io
import tempfile
from pathlib import Path

from lightning_steer.files import write
from lightning_steer.outcomes import judge
from lightning_steer.outcomes.records import Judgement
from lightning_steer.studies.published.markdown import table
from lightning_steer.studies.published.refusal_direction import JUDGES, NAMES, JudgedModel, answers, disagreements

LIMITS = (0.5, 0.6, 0.7, 0.8)
"""Promised rises of answered requests under which the judges' verdicts are compared."""


def judged(model: JudgedModel, limit: float, clustered: bool = False) -> Judgement:
    """Return the judgement that requests are answered more often by more than ``limit``, by both judges.

    Args:
        model: the model's outcomes.
        limit: the promised rise.
        clustered: whether prompts of a category belong together, instead of being independent.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answered.csv"
        lines = io.StringIO(newline="")
        writer = csv.writer(lines)
        writer.writerow(("item", "setting", "judge", "value", "cluster"))
        clusters = model.category if clustered else range(len(model.category))
        for (setting, name), values in model.complied.items():
            rows = enumerate(zip(values, clusters, strict=True))
            writer.writerows((i, NAMES[setting], name, bool(value), cluster) for i, (value, cluster) in rows)
        write(path, lines.getvalue().encode())
        return judge(path, f"answered>={limit}", baseline=NAMES["baseline"], judge=JUDGES[1], split=1.0)


def judges_section(models: list[JudgedModel]) -> list[str]:
    """Return the lines of the page about both judges."""
    rows, turns = [], []
    for model in models:
        counts = disagreements(model)
        first = judged(model, LIMITS[0])
        (compared,) = first.judges
        rows += [
            (model.name, setting.setting, setting.change.text(3), setting.other.text(3), setting.difference.text(3))
            for setting in compared.settings
        ]
        verdicts = []
        for limit in LIMITS:
            judgement = judged(model, limit)
            assert judgement.choice is not None
            verdicts.append(f"{judgement.choice.chosen or 'none'} / {judgement.other_verdicts[0].chosen or 'none'}")
        parts = ", ".join(f"{NAMES[setting]} {number}" for setting, number in counts.items())
        turns.append((model.name, f"{sum(counts.values())} of {answers(model)} ({parts})", *verdicts))
    return [
        "### Two judges",
        "",
        f"{JUDGES[0]} looks for phrases of refusal, {JUDGES[1]} reads the answer. The effect by each, and the "
        "difference of both effects, item by item:",
        "",
        *table(("model", "setting", f"change by {JUDGES[1]}", f"by {JUDGES[0]}", "difference"), rows),
        "How their disagreements change the verdict: the setting that is certified at .95 to raise answered requests "
        "by more than "
        f"a limit, by {JUDGES[1]} / by {JUDGES[0]} (all prompts choose; each limit is a call of its own):",
        "",
        *table(
            ("model", "scored differently", *(f"more than {limit:g}" for limit in LIMITS)),
            turns,
        ),
        f"These calls and intervals take prompts for independent draws. With the {len(set(models[0].category))} "
        f"categories as clusters, each counting once, a rise above 0 is certified in {_certified(models, 0.0)} calls "
        f"(models x judges), and one above {LIMITS[0]:g} in {_certified(models, LIMITS[0])}: for other categories of "
        "requests the size of the rise stays open.",
        "",
        "The judges agree that both interventions work. They differ on how well: an answer without a phrase of refusal "
        "is not yet a harmful one.",
        "",
    ]


def _certified(models: list[JudgedModel], limit: float) -> str:
    """Return how many clustered calls certify a setting, of all models and judges."""
    chosen = []
    for model in models:
        judgement = judged(model, limit, clustered=True)
        assert judgement.choice is not None
        chosen += [judgement.choice.chosen, judgement.other_verdicts[0].chosen]
    return f"{sum(choice is not None for choice in chosen)} of {len(chosen)}"
