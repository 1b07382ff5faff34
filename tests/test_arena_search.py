"""Every method of the arena is searched by its own figures, also after another one in the same cell."""

from pathlib import Path

import pytest
import torch

from lightning_steer.studies.arena import language
from lightning_steer.studies.arena.entrants import REFERENCE, entrants


def test_a_method_is_searched_as_if_no_other_had_been_before(pocket_decoder: Path) -> None:
    """The same layers and strengths, another direction: other figures, and those of a cell of its own."""
    listed = {entrant.name: entrant for entrant in entrants()}
    first, second = listed[REFERENCE], listed["random_direction 1"]._replace(strengths=listed[REFERENCE].strengths)

    def cell() -> language.LanguageCell:
        return language.LanguageCell(pocket_decoder, "truthful", 0, language.QUICK, "block")

    shared, alone = cell(), cell()
    before = shared.chosen(first, shared.fitted(first))[0]
    after, own = (each.chosen(second, each.fitted(second))[0] for each in (shared, alone))
    assert torch.equal(after.effect, own.effect)
    assert torch.equal(after.damage, own.damage)
    assert before.effect[0, 0] != pytest.approx(float(after.effect[0, 0]))
