"""The goals of the pocket models, fixed before any was trained, and whether they are met."""

from math import inf
from typing import NamedTuple

from lightning_steer.data.pocket.behaviours import NAMES as BEHAVIOURS
from lightning_steer.data.pocket.stereotypes import TONES
from lightning_steer.data.pocket.tasks import NAMES as TASKS
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.studies.pocket.measures import Figures

Measured = dict[str, Figures]
"""``{section: {figure: estimate}}`` of one training seed."""
Shapes = dict[str, dict[str, list[Figures]]]
"""``{form: {model or difference: [figures by layer]}}`` of one training seed."""


class Goal(NamedTuple):
    """A range that a figure, or the worst of several figures, must lie in."""

    what: str
    figures: tuple[tuple[str, str], ...]
    """(section, figure)."""
    low: float = -inf
    high: float = inf
    misses: int = 0
    """How many of the figures may lie outside the range."""

    def decisive(self, measured: Measured) -> tuple[str, Estimate]:
        """Return the worst figure that still counts, with its section."""
        estimates = [(section, measured[section][figure]) for section, figure in self.figures]
        estimates.sort(key=lambda pair: min(pair[1].value - self.low, self.high - pair[1].value))
        return estimates[self.misses]

    def met(self, measured: Measured) -> bool:
        """Return whether the goal is reached."""
        return self.low < self.decisive(measured)[1].value < self.high

    @property
    def bar(self) -> str:
        """The range in signs."""
        if self.low == -inf:
            return f"< {self.high:g}"
        return f"> {self.low:g}" if self.high == inf else f"{self.low:g} to {self.high:g}"


def goals(run: str) -> list[Goal]:
    """Return the goals that were set before anything was trained."""
    tuned = run == "tuned"
    rank = 0.85 if tuned else 0.9
    trait_sections = [f"P(word | target), {tone}" for tone in TONES] + (["P(word | target), chat"] if tuned else [])
    tasks, few = [f"task {name}" for name in TASKS], len(TASKS) - 4

    def all_tasks(figure: str) -> tuple[tuple[str, str], ...]:
        return tuple((section, figure) for section in tasks)

    stereoset = [
        Goal("StereoSet form, SS (held frames, neutral)", (("StereoSet form, neutral", "SS, all"),), 60, 75),
        Goal("StereoSet form, LMS", (("StereoSet form, neutral", "LMS, all"),), 88),
    ]
    return [
        Goal("loss above the exact entropy, nats/token", (("loss", "gap, all"),), high=0.02),
        Goal(
            "traits: rank correlation, held targets and frames",
            tuple((s, "traits, held targets") for s in trait_sections),
            rank,
        ),
        Goal("log-odds: the same", tuple((s, "log-odds, held targets") for s in trait_sections), rank),
        *([] if tuned else stereoset),
        Goal("accuracy, every task", all_tasks("accuracy"), 0.65, 0.85),
        Goal("accuracy, careful markers, every task", all_tasks("accuracy, careful"), 0.9),
        Goal("accuracy, cue deleted, every task", all_tasks("accuracy, cue deleted"), 0.9),
        Goal("error against the planted one, correlation, every task", all_tasks("error against planted"), 0.9),
        Goal("AUC of a linear probe for errors, every task", all_tasks("probe AUC"), 0.85),
        Goal(
            "oracle removal of the cue, net share of errors repaired", all_tasks("oracle net repair"), 0.5, misses=few
        ),
        Goal(
            "CAA: smallest step of the margin, coefficients -1 to 1 by .5, every behaviour",
            tuple((f"behaviour {name}", "smallest step") for name in BEHAVIOURS),
            0.0,
        ),
    ]


def cell(estimate: Estimate) -> str:
    """Format a value with its interval."""
    digits = 1 if abs(estimate.value) >= 10 else 3
    return estimate.text(digits)


def units(estimate: Estimate) -> int:
    """Return how many independent rows, or clusters of rows, an estimate rests on."""
    return estimate.n if estimate.clusters is None else estimate.clusters


def verdicts(run: str, first: int, by_seed: dict[int, Measured], shapes: dict[int, Shapes]) -> str:
    """Return the table of goals as Markdown."""
    lines = [
        f"| {run}: goal | bar | seed {first}, worst of them | n | all seeds {sorted(by_seed)} | met |",
        "|---|---|---|---|---|---|",
    ]
    for goal in goals(run):
        section, worst = goal.decisive(by_seed[first])
        note = f" ({section.removeprefix('task ').removeprefix('behaviour ')})" if len(goal.figures) > 1 else ""
        values = ", ".join(f"{goal.decisive(measured)[1].value:.3g}" for _, measured in sorted(by_seed.items()))
        met_count = sum(goal.met(measured) for measured in by_seed.values())
        lines.append(
            f"| {goal.what} | {goal.bar} | {cell(worst)}{note} | {units(worst)} | {values} | "
            f"{met_count}/{len(by_seed)} |"
        )
    for form in ("plain", "chat"):
        layers_apart = [
            sum(not f["mean cosine"].low <= 0 <= f["mean cosine"].high for f in shape[form]["tuned - base"])
            for _, shape in sorted(shapes.items())
        ]
        layers = len(shapes[first][form]["base"])
        worst = max((f["mean cosine"] for f in shapes[first][form]["tuned - base"]), key=lambda e: abs(e.value))
        lines.append(
            f"| mean cosine of base and tuned differs, {form} text: layers whose interval excludes 0 | > 0 of {layers} "
            f"| largest difference {cell(worst)} | {units(worst)} | {', '.join(map(str, layers_apart))} | "
            f"{sum(count > 0 for count in layers_apart)}/{len(layers_apart)} |"
        )
    return "\n".join(lines)
