"""Several methods in one search: each has the table of its own search, and the one with the largest effect is taken."""

import json
from pathlib import Path

import pytest
import torch
from conftest import ROOT

import lightning_steer as ls
from lightning_steer.__main__ import main
from lightning_steer.methods import MERA, Identity, MeanDifference, ProbeAdditive
from lightning_steer.workflows.fit import backbone
from lightning_steer.workflows.steer import Steered, searched

BASE = str(ROOT / "checkpoints/pocket/base")
PAIRS = ls.read_pairs(ROOT / "configs/pairs.jsonl")
TEXTS = [
    "In the autumn, the grey cat watched under the tree.",
    "In the morning, the hungry horse rested beside the pond.",
    "In the summer, the brown horse played along the fence.",
    "In the evening, the small fox slept near the barn.",
]
METHODS = [Identity, ProbeAdditive, MeanDifference]


@pytest.fixture(scope="module")
def llm() -> ls.LLM:
    return backbone(BASE, [3, 4])


def steer(llm: ls.LLM, method: object, **more: object) -> Steered:
    return searched(llm, PAIRS, [3, 4], method, reference_texts=TEXTS, **more)  # type: ignore[arg-type]


def test_the_method_with_the_largest_effect_is_taken(llm: ls.LLM) -> None:
    alone = {method.__name__: steer(llm, method) for method in METHODS[1:]}
    effects = {name: float(search.grid.effect[search.setting]) for name, search in alone.items()}
    best, second = sorted(effects, key=effects.__getitem__, reverse=True)
    both = steer(llm, METHODS)
    assert both.vector.card.method == best
    assert both.setting == alone[best].setting
    assert torch.equal(both.grid.effect, alone[best].grid.effect)
    assert [trial.name for trial in both.others] == [second, "Identity"]
    assert torch.equal(both.others[0].grid.effect, alone[second].grid.effect)
    assert both.others[1].setting is None
    assert f"methods by their best setting: {best} {effects[best]:.3f}" in both.reason
    assert "Identity none within the budget" in both.reason
    assert "methods" not in alone[best].reason


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        ([], r"method is \[\], not a class"),
        ([MeanDifference, "MERA"], "method is 'MERA', not a class"),
        ([Identity], "no layer and strength moves the margin as meant"),
    ],
)
def test_bad_methods(llm: ls.LLM, method: list[object], sentence: str) -> None:
    with pytest.raises((TypeError, ValueError), match=sentence):
        steer(llm, method)


def test_strengths_must_fit_all_methods(llm: ls.LLM) -> None:
    with pytest.raises(ValueError, match=r"strengths of MERA lie between 0 and 1, not at 1\.5"):
        steer(llm, [MeanDifference, MERA], strengths=[0.5, 1.5])


def test_the_command_takes_several_methods(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("pairs.jsonl").write_text("".join(json.dumps(pair._asdict()) + "\n" for pair in PAIRS))
    arguments = ["steer", "--llm", BASE, "--pairs", "pairs.jsonl", "--layers", "4", "--strengths", "1", "2"]
    assert main([*arguments, "--method", "Identity", "--method", "MeanDifference", "--full_grid"]) == 0
    capsys.readouterr()
    text = Path("logs/steer/pairs/search.md").read_text()
    assert "methods by their best setting: MeanDifference" in text
    assert "## Identity" in text
    assert text.count("| layer | 1 | 2 |") == 2
    assert json.loads(Path("logs/steer/pairs/report.json").read_text())["method"].startswith("MeanDifference")
