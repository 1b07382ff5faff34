"""Files of version 0.1: vector files and reports are read by today's names, and say so."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import rows
from safetensors import safe_open
from safetensors.torch import save_file

from lightning_steer import vectors
from lightning_steer.methods import MeanDifference
from lightning_steer.report import old_names, runs
from lightning_steer.vectors import old_cards

OLD_METRICS = {new: old for old, new in old_names.METRICS.items()}
OLD_BASELINES = {new: old for old, new in old_names.BASELINES.items()}
FIGURE = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 100}


def made(folder: Path) -> Path:
    """A vector file as it is written now."""
    method = MeanDifference(rows().h.shape[-1]).fit(rows())
    card = vectors.Card(
        method="MeanDifference",
        settings={},
        sites=[vectors.Site(3, "block", "", method.width)],
        strength=vectors.Strength(2.0, "multiples of that difference"),
        positions={"name": "TokensFrom", "offset": -2},
        effect={"exact_match": FIGURE, "intended_preferred_change": FIGURE},
        drift={"reference_kl": FIGURE},
    )
    return vectors.save(folder / "new.safetensors", vectors.SteeringVector([method], card))


def as_before(path: Path) -> Path:
    """The same file under the names of version 0.1."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        card: dict[str, Any] = json.loads(file.metadata()["lightning_steer"])
    positions = card.pop("positions")
    card |= {"format": 1, "scope": {**positions, "name": "From"}}
    for group in ("effect", "drift"):
        card[group] = {OLD_METRICS[name]: figure for name, figure in card[group].items()}
    old = path.with_name("old.safetensors")
    save_file(tensors, old, {"lightning_steer": json.dumps(card)})
    return old


def test_a_vector_file_of_0_1_is_the_same_vector(tmp_path: Path) -> None:
    new = made(tmp_path)
    with pytest.warns(UserWarning, match=r"version 0\.1"):
        old = vectors.load(as_before(new))
    assert old.card == vectors.load(new).card
    h = torch.randn(5, old.card.sites[0].width)
    assert torch.equal(old.maps[0](h, 2.0), vectors.load(new).maps[0](h, 2.0))


@pytest.mark.parametrize("name", ["Given", "ImportedVector"])
def test_an_imported_vector_is_one_under_either_name(name: str) -> None:
    with pytest.warns(UserWarning, match=r"version 0\.1"):
        card = old_cards.renamed({"method": name, "scope": {"name": "All"}})
    assert (card["method"], card["positions"]) == ("ImportedVector", {"name": "AllTokens"})


@pytest.mark.parametrize("card", [{}, {"scope": 3}, {"scope": {"name": 4}, "method": None, "effect": []}])
def test_a_damaged_card_is_left_to_its_reader(card: dict[str, Any]) -> None:
    with pytest.warns(UserWarning, match=r"version 0\.1"):
        old_cards.renamed(card)


def test_a_report_of_0_1_is_the_same_report(tmp_path: Path) -> None:
    measures = ["target_accuracy", "exact_match", "exact_match_change", "reference_kl", "drift_kl"]
    figures = dict.fromkeys(measures, FIGURE)
    report = {
        "experiment": "e", "task": "t", "backbone": "b", "method": "M", "seed": 0, "metrics": figures,
        "fitted_rows": figures, "baselines": dict.fromkeys(("baseline", "random_control", "oracle_patch"), figures),
        "curves": {"strength": {"x": [1.0], "exact_match": {"value": [0.5]}}},
        "dose_response": {"measures": ["exact_match"], "unit": "share"}, "versions": {"torch": "2"},
    }  # fmt: skip
    before = json.loads(json.dumps(report))
    for group in (before["metrics"], before["fitted_rows"], *before["baselines"].values(), *before["curves"].values()):
        for name in [name for name in group if name in OLD_METRICS]:
            group[OLD_METRICS[name]] = group.pop(name)
    before["baselines"] = {OLD_BASELINES.get(name, name): group for name, group in before["baselines"].items()}
    before["dose_response"]["measures"] = ["exact"]
    for name, content in (("new", report), ("old", before)):
        (tmp_path / name / "run").mkdir(parents=True)
        (tmp_path / name / "run" / "report.json").write_text(json.dumps(content))
    with pytest.warns(UserWarning, match=r"version 0\.1"):
        old = runs.read(tmp_path / "old")
    assert old == runs.read(tmp_path / "new")


def test_no_new_name_is_an_old_one() -> None:
    """So that reading a file twice changes nothing."""
    assert not set(old_names.METRICS.values()) & old_names.METRICS.keys()
    assert not set(old_cards.POSITIONS.values()) & old_cards.POSITIONS.keys()
