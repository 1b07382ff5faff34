"""The fidelity study's further tables: random directions choose as the own vector does; contrasts at every layer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from scipy.stats import ttest_1samp
from test_fidelity_verdict import parts as judged_parts

from lightning_steer.report import quote
from lightning_steer.studies.fidelity import declared, layers, same_choice, study, verdict, verdict_page
from lightning_steer.studies.fidelity.settings import BIAS_TYPES, NARROW, Arm
from lightning_steer.studies.fidelity.subject import Subject, directions

MODELS = {name: ROOT / "checkpoints" / "pocket" / name for name in ("base", "tuned")}


@torch.no_grad()
def test_a_vector_among_directions_gets_the_dose_that_is_declared_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same terms, strengths, budget and ties; a fitted vector is ahead of random ones of its length."""
    pair = verdict.pair(MODELS, "base", "base", "town", [3, 4])
    best, strongest = declared.chosen(pair)
    monkeypatch.setattr(declared, "BUDGET", 0.99 * pair["kl"][str(best)][strongest])  # the best is beyond it
    subject = Subject(Arm("base", "base", "base"), MODELS, "town", verdict.SEED)
    own = {k: subject.vectors[subject.llm.sites[k]] for k in (3, 4)}
    vectors = {k: torch.cat([directions(3, len(v), float(v.norm()), k), v[None]]) for k, v in own.items()}
    *random, last = same_choice.chosen(subject, vectors)
    layer, i = declared.chosen(pair)
    assert (last["layer"], last["strength"]) == (layer, verdict.STRENGTHS[i])
    assert last["fidelity"] == pytest.approx(np.mean(pair["rows"][str(layer)]["fidelity"][i]), abs=1e-6)
    assert (layer, i) != (best, strongest)
    assert last["fidelity"] > max(one["fidelity"] for one in random) + 0.1


def test_directions_are_as_long_as_the_own_vector_and_the_same_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Subject, dict[int, torch.Tensor]]] = []
    monkeypatch.setattr(same_choice, "chosen", lambda subject, vectors: seen.append((subject, vectors)))
    for model in MODELS:
        same_choice.run(MODELS, model, [1, 2], draws=3)
    units = []
    for subject, vectors in seen:
        assert subject.arm.model == subject.arm.vector
        for layer, drawn in vectors.items():
            length = subject.vectors[subject.llm.sites[layer]].norm()
            torch.testing.assert_close(drawn.norm(dim=1), length.expand(3))
        units.append(torch.stack([vectors[layer] / vectors[layer].norm(dim=1, keepdim=True) for layer in (1, 2)]))
    assert len(units) == len(MODELS) * len(BIAS_TYPES)
    for other in units[1:]:
        torch.testing.assert_close(other, units[0])
    assert float((units[0][0] - units[0][1]).abs().max()) > 0.01


def dosed(own: list[float], drawn: np.ndarray) -> dict[str, Any]:
    """Parts of five trainings with these fidelities: of the own vector, and ``[seeds, D]`` of random directions."""
    by_part: dict[str, Any] = {}
    for name, value, draws in zip(NARROW, own, drawn, strict=True):
        rows = {"2": {"fidelity": [[value] * 24] * 5}}
        by_part[f"verdict-{name}"] = {
            "own": {kind: {"rows": rows, "select": {"2": [0.1] * 5}, "kl": {"2": [0.0] * 5}} for kind in BIAS_TYPES}
        }
        one = [{"layer": 2, "strength": 1.0, "fidelity": float(v)} for v in draws]
        by_part[f"random-{name}"] = {"chosen": dict.fromkeys(BIAS_TYPES, one)}
    return by_part


def test_the_rank_is_among_directions_with_the_same_choice() -> None:
    own = [0.05, 0.06, 0.07, 0.05, 0.06]
    drawn = np.linspace(-0.04, 0.15, 20) + 0.001 * np.arange(5)[:, None]
    written = same_choice.text(dosed(own, drawn))
    mean = next(line for line in written.splitlines() if line.startswith("| mean of five"))
    assert mean == "| mean of five | 0.058 | 0.057 (-0.038 to 0.152) | 10 of 20 | 0.524 |"
    assert written.count("| training ") == 5
    assert "five trainings: 15 of 20 random" in written
    *shown, p = np.asarray(ttest_1samp(np.column_stack([drawn, own]), 0, alternative="greater")[1])
    assert f"for {(np.array(shown) <= 0.025).sum()} of 20, and for the own vector {p:.2g}." in written
    ahead = same_choice.text(dosed([0.3] * 4 + [0.2], drawn))
    assert "| mean of five | 0.280 | 0.057 (-0.038 to 0.152) | 0 of 20 | 0.048 |" in ahead
    assert same_choice.text({"verdict-narrow-1": {}}) == ""


def without(gap: float, closed: dict[str, float], noise: int) -> dict[str, list[float]]:
    """A model's margin by term: ``gap`` below 1, of which each variant closes a share."""
    spread = 0.001 * np.random.default_rng(noise).standard_normal(48)
    values = {"plain": 0.0} | {variant: closed.get(variant, 0.0) for variant in layers.VARIANTS}
    return {variant: (1 - gap * (1 - share) + spread).tolist() for variant, share in values.items()}


def test_shares_of_the_gap_are_of_their_layer() -> None:
    base = {layer: without(0, {}, 1) for layer in "12"}
    tuned = {"1": without(0.2, {"vector without top": 0.75}, 2), "2": without(0.2, {layers.VARIANTS[-1]: 1.0}, 2)}
    by_part: dict[str, Any] = {"layers-base": {"layers": base}, "layers-tuned": {"layers": tuned}}
    for i, name in enumerate(NARROW):  # one training alone has a gap, and closes it
        narrow = without(0.5, {"stream without mean": 1.0}, 3) if i == 4 else without(0, {}, 3 + i)
        by_part[f"layers-{name}"] = {"layers": {"1": narrow, "2": without(-0.1, {}, 1)}}
    rows = {tuple(line.split(" | ")[:2]): line.split(" | ")[2:] for line in layers.explained(by_part).splitlines()}

    def values(model: str, layer: str) -> Any:
        """Of the gap, and the share of it that each variant closes."""
        return pytest.approx([float(cell.split()[0]) for cell in rows[f"| {model}", layer]], abs=0.002)

    assert values("tuned", "1") == [0.2, 0, 0.75, 0, 0, 0]
    assert values("tuned", "2") == [0.2, 0, 0, 0, 0, 1]
    assert values("narrow, mean of five", "1") == [0.1, 0, 0, 1, 0, 0]
    assert "[0.7" in rows["| tuned", "1"][2]
    assert rows["| narrow, mean of five", "2"][1:] == ["-"] * 4 + ["- |"]  # no gap that could close
    del by_part["layers-narrow-3"]
    assert layers.explained(by_part) == ""


def test_what_was_lost_is_told_layer_by_layer() -> None:
    def part(own: float, base: float, lent: float) -> dict[str, Any]:
        def at(value: float) -> dict[str, Any]:
            by_layer = {k: {"margin_change": [[9.0] * 24, [sign * value] * 24]} for k, sign in (("0", -1), ("2", 1))}
            return {kind: {"rows": by_layer} for kind in BIAS_TYPES}

        return {"own": at(own), "base": at(base), "in base": at(lent)}

    by_part = {"verdict-base": part(0.06, 0, 0)}
    by_part |= {f"verdict-{name}": part(0.01 * (i - 1), 0.02, 0.03) for i, name in enumerate(NARROW)}
    lines = {line[:3]: line.split(" | ") for line in layers.lost(by_part).splitlines()}
    assert lines["| 2"][1:3] == ["0.060", "0.010 (-0.010 to 0.030); 3 of 5; p 0.115"]
    assert lines["| 2"][3].startswith("0.030 (0.030 to 0.030); 5 of 5")
    assert lines["| 2"][4].startswith("0.040 (0.040 to 0.040); 5 of 5")
    assert lines["| 2"][5].startswith("0.020 (0.000 to 0.040); 4 of 5")
    assert lines["| 0"][1:3] == ["-0.060", "-0.010 (-0.030 to 0.010); 1 of 5; p 0.885"]
    assert layers.lost({}) == ""


def test_further_parts_are_made_if_asked_for_and_shown_if_they_are_of_these_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, shown, made = dict[str, Any](weights={}), list[list[str]](), list[str]()

    def parts(*_: Any) -> dict[str, Any]:
        return {name: (weights, lambda name=name: made.append(name) or {}) for name in ("truth", "layers-base")}

    monkeypatch.setattr(study, "folders", lambda _: {})
    monkeypatch.setattr(study, "parts", parts)
    monkeypatch.setattr(study.drawn, "write", lambda out, names, leading: shown.append(names))
    given = ["--out", str(tmp_path), "--processes", "1"]
    for options in ([], ["--further"], []):
        assert study.main([*given, *options]) == 0
    assert (made, shown) == (["truth", "layers-base"], [["truth"], ["truth", "layers-base"], ["truth", "layers-base"]])
    weights["seed"] = 1
    assert study.main(given) == 0
    assert (made[2:], shown[3]) == (["truth"], ["truth"])


def test_every_verdict_that_the_page_quotes_can_be_quoted_again() -> None:
    """A table is named by words of its head; what follows a colon would be taken for its rows."""
    flat = {"layers": {"2": without(0.1, {}, 1)}}
    by_part = judged_parts() | {f"layers-{name}": flat for name in layers.MODELS}
    drawn = dosed([0.0] * 5, np.zeros((5, 20)))
    by_part |= {name: part for name, part in drawn.items() if name.startswith("random-")}
    written = verdict_page.text(by_part, [])
    page = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8")
    quoted = [match["words"] for match in quote.QUOTE.finditer(page)]
    of_others = ["stereotypes suppressed", "behaviours promoted"]
    assert quoted[-2:] == of_others
    for words in quoted[:-2]:
        head, _, rows = words.partition(": ")
        assert head.strip(" |").split(",")[0] in quote.table(written, head, rows.split(" / ") if rows else ())
