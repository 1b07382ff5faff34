"""The fidelity study's verdicts: contrasts point the way they say, the control is planted, coverage is of new terms."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT

from lightning_steer.data.pair_module import FIT, SELECT, TEST
from lightning_steer.lm.loading import load
from lightning_steer.statistics.kinds import Mean
from lightning_steer.studies.declaration import declared_text
from lightning_steer.studies.fidelity import declared, ground_truth, planted, planted_axis, verdict, verdict_page
from lightning_steer.studies.fidelity.settings import BIAS_TYPES, NARROW, Arm
from lightning_steer.studies.fidelity.subject import Subject, added, split

MODELS = {name: ROOT / "checkpoints" / "pocket" / name for name in ("base", "tuned")}
NOISE = np.random.default_rng(0)


def pairs(value: Callable[[str], float], fidelity: float = 0.1, kl: float = 0.01) -> dict[str, Any]:
    """A vector in a model: every measure's value, with terms that differ a little; layer 2, and 4 beyond the budget."""

    def rows(at: float) -> list[list[float]]:
        return [(at + 0.001 * NOISE.standard_normal(24)).tolist() for _ in verdict.STRENGTHS]

    layer = {name: rows(value(name)) for name in verdict.MEASURES} | {"fidelity": rows(fidelity)}
    pair = {"rows": {"2": layer, "4": layer}, "select": {"2": [0.0, 0.1, 0.3, 0.2, 0.3], "4": [0.9] * 5},
           "kl": {"2": [0.0, kl, kl, kl, kl], "4": [1.0] * 5}, "norm": {"2": 1.0}}  # fmt: skip
    return dict.fromkeys(BIAS_TYPES, pair)


def model(own: float, base: float, lent: float, pattern: float = -0.03, explained: float = 0.0) -> dict[str, Any]:
    def value(margin: float) -> Callable[[str], float]:
        return lambda name: pattern if name.startswith("pattern") else margin

    gap = {"plain": own, "vector as long as base's": own}
    gap |= dict.fromkeys(verdict.EXPLAINERS, own + explained * (0.06 - own))
    without = {name: (value + 0.0005 * NOISE.standard_normal(48)).tolist() for name, value in gap.items()}
    return {"own": pairs(value(own)), "base": pairs(value(base), 0.3), "in base": pairs(value(lent)),
            "without": without}  # fmt: skip


def parts(pattern: float = -0.03, explained: float = 0.0) -> dict[str, Any]:
    """The base model moves by .06 with its own vector; narrow ones by .01 with theirs and .05 with the base model's."""
    parts_by_name = {"verdict-base": model(0.06, 0.06, 0.06), "verdict-planted": model(0.04, 0.04, 0.04, 0.01)}
    parts_by_name["control-again"] = model(0.04, 0.04, 0.04, 0.02)
    parts_by_name["verdict-tuned"] = model(0.04, 0.05, 0.04, pattern, explained)
    return parts_by_name | {f"verdict-{name}": model(0.01 + 0.001 * i, 0.05, 0.02 + 0.001 * i, pattern, explained)
                    for i, name in enumerate(NARROW)}  # fmt: skip


def test_every_contrast_points_the_way_it_says() -> None:
    results = declared.results(parts())
    values = {name: result.estimate.value for name, result in results[declared.LOST.name].items()}
    positive = {"vector, in the narrow model": 0.038, "vector, in the base model": 0.038,
              "response, to the base model's vector": 0.01, "response, to the narrow model's vector": 0.01}  # fmt: skip
    assert values == pytest.approx(positive, abs=1e-3)
    assert [result.p < 0.01 for result in results[declared.NATS.name].values()] == [True] * 4
    turned = declared.results(parts(pattern=0.03))[declared.NATS.name]
    assert [result.p > 0.99 for result in turned.values()] == [True] * 4
    assert all(result.p < 1e-6 for result in results[declared.CONTROL.name].values())
    own, more = (results[declared.DOSE.name][c.name].estimate.value for c in declared.DOSE.contrasts)
    assert (own, more) == (pytest.approx(0.1, abs=1e-3), pytest.approx(0.2, abs=1e-3))


def test_equivalence_needs_little_that_is_explained() -> None:
    assert all(result.p < 0.001 for result in declared.results(parts())[declared.ANISOTROPY.name].values())
    half = declared.results(parts(explained=0.5))[declared.ANISOTROPY.name]
    assert all(result.p > 0.99 for result in half.values())
    assert half["narrow, stream without top"].estimate.value == pytest.approx(0.5, abs=0.02)


def test_a_dose_is_chosen_within_the_budget_and_ties_go_to_the_weaker() -> None:
    part = pairs(lambda _: 0.0)["town"]
    assert declared.chosen(part) == (2, 2)
    part["kl"]["2"][2] = 0.06
    assert declared.chosen(part) == (2, 4)


def test_the_page_leads_with_every_contrast_and_says_when_draws_were_opened() -> None:
    opened = [{"opened": "2026-01-01", "declaration": declared.DECLARATION.digest(), "draws": declared.DRAWS}]
    page = verdict_page.text(parts(), opened)
    for question in declared.DECLARATION.questions:
        for contrast in question.contrasts:
            assert page.count(f"| {contrast.name}") >= 2  # declared, and judged
    assert f"Opened 2026-01-01 under declaration {declared.DECLARATION.digest()}" in page
    assert declared_text(declared.DECLARATION) in page
    assert len([line for line in page.splitlines() if line.startswith(("| 1 |", "| 5 |"))]) == 2
    assert page.count("| 100% |") == 8  # two controls, bias types and measures, which are one here
    assert declared_text(declared.AGAIN) in page
    assert verdict_page.text({}, []) == ""


def test_the_page_says_which_side_of_the_pattern_moved() -> None:
    """A difference below 0 is found where the stereotype falls and where only the unrelated sentence rises."""
    table = verdict_page.sides(parts()).split("| both sides |")[1].splitlines()[2:]
    assert [line.split(" | ")[0] for line in table] == ["| base"] * 2 + ["| tuned"] * 2 + ["| narrow, mean of five"] * 2
    moved = parts()
    for kind in BIAS_TYPES:
        layer = moved["verdict-tuned"]["own"][kind]["rows"]["2"]
        layer["stereotype_change"], layer["unrelated_change"] = ([[share] * 24] * 5 for share in (0.25, 0.75))
    assert "| tuned | town | 0.250 | 0.750 | -0.03" in verdict_page.sides(moved)
    assert verdict_page.sides(moved) in verdict_page.text(moved, [])
    moved["verdict-base"] = model(0.06, 0.06, 0.06, pattern=0.03)
    counts = [line.split(" | ")[-1] for line in verdict_page.sides(moved).splitlines() if " of 10 |" in line]
    assert counts == ["0 (0) of 10 |"] * 2 + ["10 (10) of 10 |"] * 4  # two layers x five strengths


@pytest.mark.slow
def test_a_planted_component_along_an_axis_can_fail_the_claim() -> None:
    results = planted_axis.run(MODELS, (-1.0, 0.0, 1.0))
    for axis in ("mean", "top"):
        assert results[axis, 0.0].estimate.value == pytest.approx(0, abs=1e-3)
        assert results[axis, 0.0].p < 1e-6
        assert min(results[axis, -1.0].p, results[axis, 1.0].p) > 0.05


def test_a_planted_component_has_its_size_and_keeps_the_length() -> None:
    vector, axis = torch.randn(8, generator=torch.Generator().manual_seed(0)), torch.eye(8)[0]
    mixed = planted_axis.planted(vector, axis, -0.5)
    assert mixed.norm() == pytest.approx(float(vector.norm()), rel=1e-5)
    assert mixed[0] / mixed[1:].norm() == pytest.approx(-0.5, rel=1e-5)


def test_the_pattern_is_planted_and_nothing_else_is(tmp_path: Path) -> None:
    network, tokenizer = load(str(MODELS["tuned"]), "float32")
    ids = torch.tensor([tokenizer("The hill bakers are lazy.")["input_ids"]])
    before = network(ids).logits
    planted.widen(network, 4)
    assert network.model.layers[0].mlp.down_proj.weight.shape == (96, 260)
    torch.testing.assert_close(network(ids).logits, before)
    folder = tmp_path / "planted"
    planted.plant(MODELS, "tuned", folder)
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    planted.plant(MODELS, "tuned", folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp
    models = {**MODELS, "planted": folder}
    for kind in BIAS_TYPES:
        source, control = (Subject(Arm(name, name, name), models, kind) for name in ("tuned", "planted"))
        assert planted.pattern(source) < -0.02
        assert planted.pattern(control) == pytest.approx(planted.EFFECT, abs=0.004)
        site = source.llm.sites[2]
        torch.testing.assert_close(source.vectors[site], control.vectors[site])
        plain = [
            added(subject.llm, subject.test.contrasts, None, torch.zeros(1, 1))[0] for subject in (source, control)
        ]
        assert float((plain[0] - plain[1]).abs().mean()) < 0.05


@pytest.mark.parametrize(("kind", "in_seed_0"), [("town", [11, 3, 10]), ("trade", [9, 3, 12])])
def test_another_draw_has_new_sentences_about_the_same_terms(kind: str, in_seed_0: list[int]) -> None:
    """As the page says of what judges."""
    old, new = ([split(kind, False, part, seed=seed).examples for part in (FIT, SELECT, TEST)]
                for seed in (0, verdict.SEED))  # fmt: skip
    seen = [{e.target for e in part} for part in old]
    judging = {e.target for e in new[TEST]}
    assert len(set().union(*seen)) == 48
    assert judging != seen[TEST]
    assert [len(judging & part) for part in seen] == in_seed_0
    told = {(e.context, *e.sentences) for part in old for e in part}
    assert not told & {(e.context, *e.sentences) for e in new[TEST]}


def test_coverage_is_of_the_truth_about_all_terms() -> None:
    """Words of random probability: the truth is the mean over every example, and intervals hold it."""
    g = torch.Generator().manual_seed(0)
    term = torch.arange(9).repeat_interleave(4)
    level = torch.randn(9, 20, generator=g)[term]
    logp = torch.stack([level, level + 0.3 * torch.randn(9, 20, generator=g)[term]]).log_softmax(-1)
    covered = ground_truth.coverage(logp, term, [1.0], sets=400)
    moves = [float(torch.sigmoid(logp[1, n, p] - logp[1, n, 6 + p]) - torch.sigmoid(logp[0, n, p] - logp[0, n, 6 + p]))
             for n, p in itertools.product(range(36), range(6))]  # fmt: skip
    (cell,) = covered["held"]["share_change"]
    assert cell["true"] == pytest.approx(np.mean(moves), abs=1e-6)
    assert (covered["of"], covered["sets"]) == (9, 400)
    for (coverage_of,) in covered["held"].values():
        assert 0.92 < coverage_of["inside"] / 400 <= 1
        assert coverage_of["width"] > 0


def test_intervals_that_are_too_narrow_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    held = [{"strength": 1.0, "true": 0.1, "inside": inside, "width": 0.1} for inside in (3800, 3600)]
    fresh = {"sets": 4000, "terms": 24, "of": 29, "held": {"fidelity": held}}
    part = {"arm": "base", "kind": "town", "fresh": fresh}
    assert "1 of 2 cells hold" in verdict_page.coverage({"truth-base-town": part})
    g = torch.Generator().manual_seed(1)
    term = torch.arange(9).repeat_interleave(4)
    logp = (3 * torch.randn(2, 9, 20, generator=g))[:, term].log_softmax(-1)
    rows_alone = Mean(-1, 1, steady=True)
    monkeypatch.setattr(ground_truth, "FRESH", {"share_change": rows_alone})
    monkeypatch.setattr(ground_truth, "estimate_columns", lambda table, kinds, cluster: {
        name: rows_alone.estimate(column.numpy()) for name, column in table.items()})  # fmt: skip
    (cell,) = ground_truth.coverage(logp, term, [1.0], sets=400)["held"]["share_change"]
    clustered = cell["inside"] / 400
    assert clustered < 0.9  # rows taken for independent: six of a term go together


def test_the_page_has_the_declarations_as_they_are() -> None:
    page = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8")
    for declaration in (declared.DECLARATION, declared.AGAIN):
        assert declared_text(declaration).rstrip() in page
        assert f"under declaration {declaration.digest()}: {declaration.verdict_draws}." in page


def test_the_page_limits_the_verdicts_as_the_study_does() -> None:
    """A verdict about 24 of 48 terms that had been seen says so, and a control that restates p as well."""
    written = " ".join((ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8").split())
    made = verdict_page.text(parts(), [])
    for limit in (
        verdict_page.SCOPE,
        verdict_page.REDRAWN,
        verdict_page.SIGNS,
        verdict_page.MATCHED,
        verdict_page.SIDES,
    ):
        assert limit in written
        assert limit in made
    for question in (declared.LOST, declared.DOSE):
        least = len(question.contrasts) * 0.5 ** len(declared.NARROW)
        assert least > 0.05
        assert f"{least:g}".removeprefix("0") in verdict_page.SIGNS
