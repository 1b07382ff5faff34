"""States other than the declared one: the same rows, the design's own figures, and kinds that count once."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_steer.studies.mera.crossed import cell, jobs, layers, networks, planted, priors, worlds
from lightning_steer.studies.mera.crossed.results import Key, chosen, value
from lightning_steer.studies.mera.crossed.shifts import Family

torch.set_num_threads(1)
WORLD = worlds.WORLDS[0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> networks.Trained:
    return networks.load(tmp_path_factory.mktemp("networks"), WORLD, 10, 60)


def test_every_state_leads_to_the_same_answers(trained: networks.Trained) -> None:
    x = worlds.draw(WORLD, 50, torch.Generator().manual_seed(0)).x
    network = trained.network
    states = {above: network.read(x, above) for above in layers.STATES}
    assert list(layers.STATES.values()) == ["before block 1", "before block 2", "before block 3"]
    assert torch.equal(states[3], network.embed(x))
    assert torch.equal(states[networks.ABOVE], network.read(x))
    for above, h in states.items():
        assert torch.equal(network.answer(h, above), network.answer(states[3], 3))
        assert above == networks.ABOVE or not torch.equal(h, network.read(x))


def test_rows_are_the_same_at_every_state(trained: networks.Trained) -> None:
    key = Key(WORLD.name, "10", "", 20)
    declared, declared_answer = jobs.drawn(trained, WORLD, key, 20, 0.1)
    for above in layers.STATES:
        parts, answer = jobs.drawn(trained, WORLD, key, 20, 0.1, above)
        for part, of_design in zip(parts, declared, strict=True):
            assert torch.equal(part.y, of_design.y)
            assert torch.equal(part.logits, of_design.logits)
            assert torch.equal(answer(part.h), part.logits)
            assert torch.equal(part.h, of_design.h) == (above == networks.ABOVE)
    assert torch.equal(declared_answer(declared.test.h), declared.test.logits)


def test_a_cell_is_the_designs_own(trained: networks.Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """At the declared state it gives the figures of the first design, which judges every way; elsewhere not."""
    monkeypatch.setattr(networks, "load", lambda *_: trained)
    prior = priors.Prior(WORLD.name, WORLD.pull_share, 10, 20)
    parts, answer = jobs.drawn(trained, WORLD, Key(WORLD.name, "10", "", 20), 60)
    stored = cell.run(parts, answer, 20_000, False)
    found = {above: layers.one(layers.Cell(above, prior), tmp_path, 60) for above in (networks.ABOVE, 3)}
    for way, side in layers.WAYS.items():
        assert chosen(found[networks.ABOVE], side) == chosen(stored, side)
        assert layers.spi(found[networks.ABOVE], way)[0] == value(stored, side)
        assert chosen(found[3], side)["r2"] != chosen(stored, side)["r2"]
    assert layers.spi(found[networks.ABOVE], layers.RANDOM)[0] == pytest.approx(value(stored, "mean of 20 random"))
    assert found[3]["base"] == stored["base"]


def test_geometry_of_planted_worlds() -> None:
    """Where all directions vary alike, w is its own Sigma w and a step along it achieves its prediction."""
    alike = layers.geometry(*planted.world("w repairs", 5))
    filtered = layers.geometry(*planted.world("filter", 5))
    cosine, causal, variance, dimensions = (alike[name] for name in layers.GEOMETRY)
    assert cosine > 0.9
    assert causal > 0.5
    assert variance == pytest.approx(1, abs=0.2)
    assert dimensions > 80
    assert filtered[layers.GEOMETRY[0]] < 0.1
    assert filtered[layers.GEOMETRY[2]] < 0.1
    assert filtered[layers.GEOMETRY[3]] < 10
    w, sigma_w = layers.ADAPTIVE[:2]
    assert alike[w] > 0.5
    assert abs(filtered[w]) < 0.05 < 0.2 < filtered[sigma_w]


@pytest.mark.parametrize(("stretch", "expected"), [(1.0, 1.0), (2.0, 2.0), (-1.0, -1.0)])
def test_a_step_achieves_what_it_predicts_where_the_probe_is_the_model(stretch: float, expected: float) -> None:
    """The logit error is a.h, and so is the probe; rows below the threshold stay."""
    a = torch.tensor([1.0, 2.0])
    h = torch.tensor([[1.0, 0.5], [-3.0, -4.0], [0.5, 1.0]])

    def answer(h: torch.Tensor) -> torch.Tensor:
        return torch.stack([-(h @ a), torch.zeros(len(h))], -1)

    part = cell.CellPart(h, torch.zeros(3, dtype=torch.long), answer(h))
    family = Family("p", 0.0, "w", "adaptive", a.double(), torch.zeros(10).double(), stretch * a.double() / 5)
    assert layers.achieved(part, answer, family) == pytest.approx(expected)
    still = family._replace(offsets=torch.full((10,), -20.0).double())
    assert layers.achieved(part, answer, still) == 0


def test_a_kind_counts_once_and_states_and_shares_stand_apart() -> None:
    def one(size: float) -> dict[str, Any]:
        def row(probe: str, direction: str, dose: str = "adaptive") -> dict[str, Any]:
            return {"probe": probe, "r2": size, "direction": direction, "dose": dose, "spi": size, "certified": True}

        rows = [row("lasso 0", "w"), row("lasso 0", "w", "constant"), row("lasso 0", "Sigma w"), row("ridge 10", "w"),
                row("ridge 100", "w") | {"certified": False}, row("-", "random 0", "constant"),
                row("-", "random 1", "constant") | {"certified": False}]  # fmt: skip
        return {"families": rows, "base": {"accuracy": size},
                "geometry": dict.fromkeys([*layers.GEOMETRY, *layers.ADAPTIVE], size)}  # fmt: skip

    first, second = priors.KINDS[:2]
    values = {(first, 0): 0.0, (first, 1): 0.5, (second, 0): 1.0}
    low, high = layers.DESIGNS
    cells = {
        layers.Cell(above, priors.Prior(kind, share, network, 20)): one(v if (above, share) == (3, low) else 0.0)
        for (kind, network), v in values.items() for above in layers.STATES for share in (low, high)
    }  # fmt: skip
    lines = layers.text(cells).splitlines()
    mean = "0.62 (0.25 to 1.00)"
    assert f"| before block 1: {layers.ADAPTIVE[0]} | {mean} | 0.25 1.00 | 3 of 3 |" in lines
    assert f"| before block 1: {layers.ADAPTIVE[-1]} | 0.00 (0.00 to 0.00) | 0.00 0.00 | 0 of 3 |" in lines
    assert f"| before block 1: {layers.RANDOM} | 0.31 (0.12 to 0.50) | 0.12 0.50 | 3 of 6 |" in lines
    assert sum(mean in line for line in lines) == 5  # four certified ways, and the geometry, of one state at one share
    assert f"| before block 1 |{f' {mean} |' * 11}" in lines


def test_all_cells_are_declared_rows_of_kinds_that_can_be_repaired() -> None:
    keys = layers.design()
    assert len({key.file for key in keys}) == len(keys) == 6 * 3 * (3 * 5 + 2 * 2)
    assert "no direction repairs" not in {key.prior.kind for key in keys}
