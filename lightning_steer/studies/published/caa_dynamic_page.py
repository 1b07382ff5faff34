"""What the page says of CAA_Dynamic."""

import csv
import io
import tempfile
from pathlib import Path

import numpy as np

from lightning_steer.files import write
from lightning_steer.outcomes import Judgement, judge
from lightning_steer.outcomes.position_prose import position_sentences, position_table
from lightning_steer.outcomes.prose import measure_sentences
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.studies.published.caa_dynamic import BehaviourAnswers, Counts, count, pooled, read
from lightning_steer.studies.published.caa_dynamic_training import read as read_training
from lightning_steer.studies.published.caa_dynamic_training import sentences
from lightning_steer.studies.published.markdown import table
from lightning_steer.studies.published.sources import CAA_DYNAMIC, Section, head

LAYER = 13
"""The layer of the vectors that are released beside the outcomes."""


def judged(cells: list[BehaviourAnswers], layer: int = LAYER) -> Judgement:
    """Return the judgement of all behaviours' items together at one layer."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"layer-{layer}.csv"
        lines = io.StringIO(newline="")
        writer = csv.writer(lines)
        writer.writerow(("item", "strength", "matching", "p_a", "p_b"))
        for cell in (cell for cell in cells if cell.layer == layer):
            for multiplier in cell.p_a:
                if not (cell.mass(multiplier) > 0).all():
                    continue  # an item with no probability on either answer has no letter
                pairs = zip(cell.items, cell.at_a, cell.p_a[multiplier], cell.p_b[multiplier], strict=True)
                for item, at_a, a, b in pairs:
                    name = f"{cell.behaviour}-{item}"
                    writer.writerow((name, multiplier, "A" if at_a else "B", repr(float(a)), repr(float(b))))
        write(path, lines.getvalue().encode())
        return judge(path)


def section(outcomes: Path) -> Section:
    """Return what the page says."""
    cells = read(outcomes)
    near, far = count(cells, 1.0), count(cells, 2.0)
    layers, meant, letter = pooled(cells, 1.0)
    judgement, training = judged(cells), read_training(outcomes.parent)
    matching, mass = judgement.measures
    behaviours = sorted({cell.behaviour for cell in cells})
    lines = [
        *head(CAA_DYNAMIC),
        f"**What the items support.** The vectors move probability to a letter, A, rather than to the matching "
        f"answer. Of {near.cells} cells ({layers} layers x "
        f"{len(behaviours)} behaviours), {near.letter} make the answer A likelier at multiplier 1 than at -1; "
        f"{near.as_meant} make the matching answer likelier, and {near.each_letter} do so both where A matches and "
        f"where B does. In {near.each_letter_answered} of these, half of the probability is still on A and B. None is "
        f"certain by itself: with {len(cells[0].items)} items the smallest p-value that there can be is "
        f"{near.smallest_p:.5f}, and {0.05 / near.cells:.5f} would be needed. With all behaviours' items together "
        f"({matching.n} a layer), the matching answer certainly rises from -1 to 1 at {meant} of {layers} layers, and "
        f"the letter A at {letter} (betting on the range, Holm's correction over layers).",
        "",
        *_counts(near, far),
        f"At layer {LAYER}, {matching.n} items (95 % intervals: t, skew-adjusted, wider where few rows may decide):",
        "",
        *_doses(cells, judgement),
    ]
    lines += [line for text in measure_sentences(matching) for line in (text, "")]
    places = position_table(matching)
    assert places is not None
    lines += ["Change of the probability of the matching answer by the letter at which it stood:", ""]
    lines += table(places.columns, places.rows)
    lines += [line for text in position_sentences(matching) for line in (text, "")]
    left = [setting.setting for setting in mass.settings if setting.value.value < 0.5]
    lines += [
        f"At multipliers beyond 2 in either direction probability leaves both answers: at layer {LAYER} less than "
        f"half is left at "
        f"{', '.join(left)}. Over all {near.cells} cells the mean is:",
        "",
        *table(("multiplier", *(f"{m:g}" for m in cells[0].p_a)), [("A and B together", *_masses(cells))]),
        "So the curves beyond 2 compare the small probabilities that are left. Both directions of one vector raise "
        "the matching answer, since "
        "without steering the model gives the other one, and forcing either letter helps wherever that letter matches.",
        "",
        *sentences(training),
        "The other behaviours of the repository are not among the shared tables, and nothing is said of them here.",
        "",
    ]
    short = (
        f"The vectors move probability to a letter rather than to the matching answer: {near.letter} of {near.cells} "
        f"cells make the answer A likelier at multiplier 1 "
        f"than at -1. The number of cells that make the matching answer likelier both where it is A and where it is B, "
        f"with half of the probability still on A and B, is {near.each_letter_answered}. At multipliers beyond 2 in "
        f"either direction, probability leaves both answers."
    )
    return Section(short, lines)


def _counts(near: Counts, far: Counts) -> list[str]:
    rows = [
        ("the matching answer is likelier at +s than at -s", near.as_meant, far.as_meant),
        (
            "the matching answer is likelier at +s, and less likely at -s, than without steering",
            near.each_side,
            far.each_side,
        ),
        (
            "the matching answer is likelier at +s than at -s both where A matches and where B matches",
            near.each_letter,
            far.each_letter,
        ),
        ("... and at least half of the probability is on A and B, at +s and at -s", *_both(near, far)),
        (
            "the matching answer is likelier at +s than at -s for certain (Holm over all cells)",
            near.as_meant_certain,
            far.as_meant_certain,
        ),
        ("the letter A is likelier at +s than at -s", near.letter, far.letter),
        ("the matching answer is likelier at +s and at -s than without steering", near.both_up, far.both_up),
    ]
    return table((f"cells of {near.cells} in which", "s = 1", "s = 2"), rows)


def _both(near: Counts, far: Counts) -> tuple[int, int]:
    return near.each_letter_answered, far.each_letter_answered


def _doses(cells: list[BehaviourAnswers], judgement: Judgement) -> list[str]:
    matching, mass = judgement.measures
    some = [cell for cell in cells if cell.layer == LAYER]
    rows = [
        (
            setting.setting,
            f"{np.mean([cell.letter(setting.strength).mean() for cell in some]):.3f}",
            _value(setting.value),
            _value(left.value),
        )
        for setting, left in zip(matching.settings, mass.settings, strict=True)
        if setting.strength is not None
    ]
    return table(("multiplier", "A, of both answers", "matching answer, of both", "A and B together"), rows)


def _value(estimate: Estimate) -> str:
    return estimate.text(3)


def _masses(cells: list[BehaviourAnswers]) -> list[str]:
    return [f"{np.mean([cell.mass(m).mean() for cell in cells]):.3f}" for m in cells[0].p_a]
