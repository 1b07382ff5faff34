"""The toy data: what was planted is there, whoever draws it."""

from types import SimpleNamespace

import pytest
import torch

from lightning_steer.data import ToyDataModule, ToyLabelDataModule
from lightning_steer.data.toy.world import ToyPairBatch, ToyPairSplit, ToyWorld, generator

WORLD = {"attributes": 6, "values": 4, "dimensions": 4}
VARIANTS = [{}, {"density": 2.0}, {"continuous": True}, {"density": 3.0, "continuous": True}]


def all_rows(loader: object) -> ToyPairBatch:
    return ToyPairBatch(*(torch.cat(column) for column in zip(*loader, strict=True)))  # type: ignore[call-overload]


def on_rank(data: ToyDataModule | ToyLabelDataModule, rank: int, world: int) -> None:
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world)  # type: ignore[assignment]


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_draws_are_the_same_and_the_seed_matters(variant: dict) -> None:
    first, second = (ToyDataModule(pairs=40, test_rows=50, **WORLD, **variant) for _ in range(2))
    other = ToyDataModule(pairs=40, test_rows=50, seed=1, **WORLD, **variant)
    for a, b in zip(all_rows(first.train_dataloader()), all_rows(second.train_dataloader()), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(all_rows(first.train_dataloader()).x, all_rows(other.train_dataloader()).x)


def test_splits_share_no_row() -> None:
    data = ToyDataModule(pairs=40, test_rows=50, **WORLD)
    splits = [data.train_dataloader(), data.val_dataloader(), data.test_dataloader()[0]]
    x = torch.cat([all_rows(loader).x for loader in splits])
    assert len(x.unique(dim=0)) == len(x) == 30 + 10 + 50


@pytest.mark.parametrize("world", [2, 3, 7])
def test_processes_share_out_the_very_rows_of_one(world: int) -> None:
    data = ToyDataModule(pairs=40, test_rows=50, batch_size=16, **WORLD)
    alone = all_rows(data.test_dataloader()[0])
    shares, steps = [], []
    for rank in range(world):
        on_rank(data, rank, world)
        steps.append(len(list(data.test_dataloader()[0])))
        shares.append(all_rows(data.test_dataloader()[0]))
    rows = torch.cat([part.row for part in shares])
    assert len(rows) == 50  # none twice
    assert torch.equal(torch.cat([part.x for part in shares])[rows.argsort()], alone.x)
    assert len(set(steps)) == 1  # no process waits for another


def test_the_first_pairs_do_not_depend_on_how_many_follow() -> None:
    few, many = (all_rows(ToyDataModule(pairs=n, **WORLD).train_dataloader()) for n in (16, 200))
    assert torch.equal(few.x_positive, many.x_positive[: len(few.x)])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("paired", [True, False])
def test_positives_and_negatives_are_what_they_claim(paired: bool, variant: dict) -> None:
    data = ToyDataModule(pairs=300, target=[1, 3], target_value=2, paired=paired, noise=0.0, **WORLD, **variant)
    pairs = all_rows(data.train_dataloader())
    assert (pairs.y[:, [1, 3]] != 2).all()
    assert (pairs.y_positive[:, [1, 3]] == 2).all()
    others = [0, 2, 4, 5]
    assert torch.equal(pairs.y[:, others], pairs.y_positive[:, others])
    counts = pairs.y[:, 1].bincount(minlength=4)
    assert counts[2] == 0
    assert counts[[0, 1, 3]].min() > 50
    if not variant:
        same = (pairs.x == pairs.x_positive).reshape(-1, 6, 4).all(-1)
        assert not same[:, [1, 3]].any()
        assert same[:, others].all() if paired else same[:, others].float().mean() < 0.5


def test_a_sample_is_its_anchors_and_noise() -> None:
    world = ToyWorld(noise=0.1, **WORLD)
    values, offsets = world.draw(4000, generator(1))
    x = world.render(values, offsets, generator(2))
    clean = torch.cat([world.anchors[a][values[:, a]] for a in range(6)], 1)
    assert abs(float((x - clean).std()) - 0.1) < 0.002
    assert x.shape == (4000, world.inputs) == (4000, 24)


def test_superposition_adds_anchors_in_shared_dimensions() -> None:
    world = ToyWorld(density=2.0, noise=0.0, **WORLD)
    assert world.inputs == 6 * 4 / 2
    values, offsets = world.draw(100, generator(1))
    x = world.render(values, offsets, generator(2))
    torch.testing.assert_close(x, sum(world.anchors[a][values[:, a]] for a in range(6)))
    lengths = ToyWorld(attributes=40, values=40, dimensions=8, density=4.0).anchors.square().sum(-1)
    assert abs(float(lengths.mean()) - 8) < 0.3  # an anchor is as long as one with 8 dimensions of its own


def test_a_continuous_attribute_lies_nearest_to_its_value() -> None:
    world = ToyWorld(continuous=True, noise=0.0, **WORLD)
    values, offsets = world.draw(500, generator(1))
    assert offsets.abs().max() <= 0.4
    assert offsets.std() > 0.2
    points = world.render(values, offsets, generator(2)).reshape(500, 6, 4)
    inside = (values > 0) & (values < 3)
    direct = world.anchors[torch.arange(6), values]
    towards = world.anchors[torch.arange(6), (values + offsets.sign().long()).clamp(0, 3)]
    share = (points - direct).norm(dim=-1) / (towards - direct).norm(dim=-1)
    torch.testing.assert_close(share[inside], offsets[inside].abs(), rtol=1e-3, atol=1e-4)


def test_training_goes_on_with_fresh_samples() -> None:
    data = ToyLabelDataModule(batch_size=8, steps_per_epoch=3, test_rows=20, **WORLD)
    loader = data.train_dataloader()
    first = [batch.x for batch in loader]
    loader.sampler.set_epoch(1)  # type: ignore[attr-defined]
    second = [batch.x for batch in loader]
    assert len(torch.cat(first + second).unique(dim=0)) == 48
    assert [len(batch.x) for batch in data.val_dataloader()] == [8, 8, 4]


def test_below_eight_pairs_all_serve_for_both() -> None:
    data = ToyDataModule(pairs=4, **WORLD)
    assert torch.equal(all_rows(data.train_dataloader()).x, all_rows(data.val_dataloader()).x)
    assert ToyDataModule(pairs=2000, **WORLD).select_rows == 200


BAD = [
    ({"target": 6}, "target attribute 6 does not exist: there are 6"),
    ({"target": -1}, "target attribute -1 does not exist"),
    ({"target": [0, 0]}, "each once"),
    ({"target": []}, "at least one"),
    ({"target": [0, 1, 2, 3, 4, 5]}, "never all"),
    ({"target_value": 4}, "target value 4 does not exist: there are 4"),
    ({"pairs": 0}, "pairs must be at least 1, not 0"),
    ({"select_share": 1.0}, "select_share"),
    ({"test_rows": 0}, "test_rows"),
    ({"noise": -0.1}, "cannot be negative: -0.1"),
    ({"noise": float("nan")}, "noise must be a finite number, not nan"),
    ({"attributes": 1}, "at least 2 attributes"),
    ({"values": 1}, "2 values"),
    ({"dimensions": 0}, "1 dimension"),
    ({"density": 0.0}, "density must lie in"),
    ({"density": 1000.0}, "density must lie in"),
]


@pytest.mark.parametrize(("settings", "sentence"), BAD)
def test_impossible_settings_are_refused(settings: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ToyDataModule(**{**WORLD, **settings})


def test_another_split_of_the_batches_is_another_draw_only_by_its_batch_size() -> None:
    """Documented: batch j depends on the seeds, j and the batch size, and on nothing else."""
    world = ToyWorld(**WORLD)
    split = ToyPairSplit(world, 10, 8, (0, 0), slice(None), [0], 0, True)
    assert torch.equal(split[1].x, ToyPairSplit(world, 100, 8, (0, 0), slice(None), [0], 0, True)[1].x[:2])
