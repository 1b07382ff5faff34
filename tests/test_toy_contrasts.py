"""All contrasts of an axis stand in its table, corrected for their number; two architectures never share one."""

from typing import Any

import numpy as np
import pytest

from lightning_steer.studies.toy import contrasts
from lightning_steer.studies.toy.settings import AXES, CHECKS

NOISE = np.random.default_rng(0)
AXIS = [(cell.axis, cell.level, cell.name) for cell in (*AXES, *CHECKS)]


def part(lead: float, lag: float, networks: int = 8) -> dict[str, Any]:
    """Vectors ahead of every map by ``lead`` at 8 pairs, behind by ``lag`` at 2,048; 3 target sets."""

    def exact(mean: float) -> dict[str, Any]:
        return {"exact": (mean + 0.05 * NOISE.standard_normal((networks, 3))).tolist()}

    vectors = {name: {"8": exact(0.5 + lead), "2048": exact(0.8 - lag)} for name in contrasts.VECTORS}
    return {"methods": vectors | {name: {"8": exact(0.5), "2048": exact(0.8)} for name in contrasts.MAPS}}


def test_a_contrast_needs_both_ends() -> None:
    for lead, lag, seen in ((0.3, 0.3, True), (0.3, 0.0, False), (0.0, 0.3, False), (-0.3, 0.3, False)):
        every = contrasts.contrasts([("level", part(lead, lag))])
        assert len(every) == 10
        assert all((result.p < 0.005) == seen for result in every), (lead, lag)
        assert every[0].few.estimate.value == pytest.approx(lead, abs=0.05)


def test_no_contrast_is_left_out_and_what_is_not_shown_says_what_could_have_been() -> None:
    table = contrasts.table("density", [("easy", part(0.0, 0.0)), ("4 values per dimension (w 32)", part(0.3, 0.3))])
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:] if " - " in line]
    assert len(rows) == 20
    assert [row[-1] for row in rows].count("yes") == 10
    assert "density: 10 of 20 contrasts show both, after Holm." in table
    assert [row[0] for row in rows if "(primary)" in row[1]] == ["4 values per dimension (w 32)"]
    assert all(0 < float(row[3]) < 0.2 and 0 < float(row[5]) < 0.2 for row in rows)
    assert all(float(row[7]) >= float(row[6]) for row in rows)


def test_the_number_of_levels_is_corrected_for() -> None:
    part_alike = part(0.06, 0.06)
    alone, among = (
        contrasts.table("values", [("a", part_alike)] + [(f"b{i}", part(0, 0)) for i in range(n)]) for n in (0, 9)
    )
    assert alone.count("| yes |") >= among.count("| yes |")


def test_architectures_have_tables_of_their_own() -> None:
    by_name = {name: part(0.3, 0.3) for *_, name in AXIS}
    text = contrasts.text(by_name, AXIS, "report's network")
    small, own = text.split("On the report's network of 60 attributes:")
    assert "w 128, 1 attribute" in own
    assert "w 128, 1 attribute" not in small
    assert all(small.count(f"| all contrasts, {axis} |") == 1 for axis in ("density", "attributes", "values"))
    assert contrasts.PRIMARY.keys() == {cell.axis for cell in AXES}
    assert all(any(cell.level == level and cell.axis == axis for cell in AXES)
               for axis, (level, *_) in contrasts.PRIMARY.items())  # fmt: skip
