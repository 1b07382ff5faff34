"""What the pocket models had to reach, fixed before any was trained, and whether they do."""

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
    """What a figure, or the worst of several, has to reach."""

    what: str
    figures: tuple[tuple[str, str], ...]
    """(section, figure)."""
    low: float = -inf
    high: float = inf
    misses: int = 0
    """How many of the figures may lie outside."""

    def decisive(self, measured: Measured) -> tuple[str, Estimate]:
        """The worst figure that still counts, and its section."""
        found = [(section, measured[section][figure]) for section, figure in self.figures]
        found.sort(key=lambda pair: min(pair[1].value - self.low, self.high - pair[1].value))
        return found[self.misses]

    def met(self, measured: Measured) -> bool:
        """Whether it is reached."""
        return self.low < self.decisive(measured)[1].value < self.high

    @property
    def bar(self) -> str:
        """In signs."""
        if self.low == -inf:
            return f"< {self.high:g}"
        return f"> {self.low:g}" if self.high == inf else f"{self.low:g} to {self.high:g}"


def goals(run: str) -> list[Goal]:
    """What was promised before anything was trained."""
    tuned = run == "tuned"
    rank = 0.85 if tuned else 0.9
    told = [f"P(word | target), {tone}" for tone in TONES] + (["P(word | target), chat"] if tuned else [])
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
            "traits: rank correlation, held targets and frames", tuple((s, "traits, held targets") for s in told), rank
        ),
        Goal("log-odds: the same", tuple((s, "log-odds, held targets") for s in told), rank),
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
    """A value with its interval."""
    digits = 1 if abs(estimate.value) >= 10 else 3
    return estimate.text(digits)


def units(estimate: Estimate) -> int:
    """How many independent rows, or clusters of rows, an estimate rests on."""
    return estimate.n if estimate.clusters is None else estimate.clusters


def verdicts(run: str, first: int, found: dict[int, Measured], shapes: dict[int, Shapes]) -> str:
    """The table of goals."""
    lines = [
        f"| {run}: goal | bar | seed {first}, worst of them | n | all seeds {sorted(found)} | met |",
        "|---|---|---|---|---|---|",
    ]
    for goal in goals(run):
        section, shown = goal.decisive(found[first])
        where = f" ({section.removeprefix('task ').removeprefix('behaviour ')})" if len(goal.figures) > 1 else ""
        others = ", ".join(f"{goal.decisive(measured)[1].value:.3g}" for _, measured in sorted(found.items()))
        kept = sum(goal.met(measured) for measured in found.values())
        lines.append(
            f"| {goal.what} | {goal.bar} | {cell(shown)}{where} | {units(shown)} | {others} | {kept}/{len(found)} |"
        )
    for form in ("plain", "chat"):
        apart = [
            sum(not f["mean cosine"].low <= 0 <= f["mean cosine"].high for f in shape[form]["tuned - base"])
            for _, shape in sorted(shapes.items())
        ]
        layers = len(shapes[first][form]["base"])
        shown = max((f["mean cosine"] for f in shapes[first][form]["tuned - base"]), key=lambda e: abs(e.value))
        lines.append(
            f"| mean cosine of base and tuned differs, {form} text: layers whose interval excludes 0 | > 0 of {layers} "
            f"| largest difference {cell(shown)} | {units(shown)} | {', '.join(map(str, apart))} | "
            f"{sum(count > 0 for count in apart)}/{len(apart)} |"
        )
    return "\n".join(lines)
