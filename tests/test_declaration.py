"""A declaration answers for every contrast, no silence passes for a null, and verdict draws are opened under one."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lightning_steer.statistics.claims import Result
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.multiplicity import holm
from lightning_steer.studies import declaration as declared
from lightning_steer.studies.declaration import Contrast, Declaration, Question
from lightning_steer.studies.opening import open_once

QUESTION = Question(
    "Pattern", "Does it fall?",
    (Contrast("base", "change at strength 1", primary=True), Contrast("tuned", "the same", "within", 0.05)),
    "terms", "planted, found in 97 of 100 repeats.",
)  # fmt: skip
DECLARATION = Declaration("fidelity", (QUESTION,), ("the sweep of 0.1.0, draw 0",), "terms of draw 7")


def result(p: float, detectable: float = 0.1) -> Result:
    return Result(Estimate(0.2, 0.1, 0.3, 144, 24, "t"), p, detectable)


def test_holm_is_stepwise_and_keeps_the_order() -> None:
    np.testing.assert_allclose(holm([0.04, 0.01, 0.03]), [0.06, 0.03, 0.06])
    np.testing.assert_allclose(holm([0.9, 0.5]), [1, 1])
    assert holm([]).shape == (0,)
    with pytest.raises(ValueError, match="between 0 and 1, not nan"):
        holm([0.1, math.nan])


def test_holm_holds_its_level_where_bare_p_values_do_not() -> None:
    p = np.random.default_rng(0).uniform(size=(4000, 5))
    assert (p.min(1) <= 0.05).mean() > 0.2
    assert np.mean([(holm(row) <= 0.05).any() for row in p]) < 0.06


def test_every_declared_contrast_has_a_result_and_no_other_has_one() -> None:
    with pytest.raises(ValueError, match=r"are for \['base'\], but declared are \['base', 'tuned'\]"):
        declared.verdicts(QUESTION, {"base": result(0.01)})
    with pytest.raises(ValueError, match="but declared are"):
        declared.verdicts(QUESTION, {name: result(0.01) for name in ("base", "tuned", "third")})


def test_a_null_says_what_could_have_been_seen() -> None:
    both = {"base": result(0.01), "tuned": result(0.2, math.nan)}
    with pytest.raises(ValueError, match="'tuned' is not shown: give the smallest effect"):
        declared.verdicts(QUESTION, both)
    text = declared.verdict_text(QUESTION, both | {"tuned": result(0.2, 0.08)})
    assert "| base | above 0 | 0.200 [0.100, 0.300] | 0.01 | 0.02 | yes | 0.1 |" in text
    assert "| tuned | between -0.05 and 0.05 | 0.200 [0.100, 0.300] | 0.2 | 0.2 | no | 0.08 |" in text


def test_a_claim_that_passes_alone_may_fail_among_others() -> None:
    shown = [seen for *_, seen in declared.verdicts(QUESTION, {"base": result(0.03), "tuned": result(0.04)})]
    assert shown == [False, False]


def test_the_declaration_is_printed_whole() -> None:
    text = declared.declared_text(DECLARATION)
    for part in (DECLARATION.digest(), "terms of draw 7", "- the sweep of 0.1.0, draw 0", "| base (primary) |",
                 "other terms", "found in 97 of 100"):  # fmt: skip
        assert part in text


def test_names_within_a_question_differ() -> None:
    with pytest.raises(ValueError, match="contrasts of different names"):
        replace(QUESTION, contrasts=(QUESTION.contrasts[0],) * 2)


def test_draws_are_opened_under_one_declaration(tmp_path: Path) -> None:
    log = tmp_path / "opened.jsonl"
    first = open_once(log, DECLARATION, "draw 7", ["make", "fidelity"])
    assert open_once(log, DECLARATION, "draw 7", ["another"]) == first  # goes on, and is not opened twice
    changed = replace(DECLARATION, tried_before=())
    with pytest.raises(ValueError, match="'draw 7' were opened under declaration"):
        open_once(log, changed, "draw 7", [])
    assert len(open_once(log, changed, "draw 8", ["make"])) == 2
    entries = [json.loads(line) for line in log.read_text().split("\n") if line]
    assert [entry["draws"] for entry in entries] == ["draw 7", "draw 8"]
    assert entries[0]["command"] == ["make", "fidelity"]
    assert entries[0]["declaration"] == DECLARATION.digest() != entries[1]["declaration"]
