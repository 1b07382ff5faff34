"""Data modules of the toy laboratory: labelled samples to train the network, pairs to steer it."""

from typing import Any

from torch.utils.data import DataLoader

from lightning_steer.data.base import SteeringDataModule
from lightning_steer.data.batches import Onwards, share
from lightning_steer.data.toy.world import ToyLabelledBatch, ToyLabelledSplit, ToyPairBatch, ToyPairSplit, ToyWorld
from lightning_steer.errors import UserError
from lightning_steer.numbers import ranged

TRAIN, SELECT, TEST = range(3)


class ToyLabelDataModule(SteeringDataModule):
    """Labelled samples for training the toy network: fresh ones in every epoch, a fixed held-out set.

    Args:
        batch_size: samples in a batch, shared out over all processes.
        steps_per_epoch: batches in an epoch.
        test_rows: held-out samples for validation, and as many others for the test.
        seed: draws the samples.
        world: what :class:`ToyWorld` takes.
    """

    subject = "labelled samples"

    @ranged
    def __init__(
        self,
        batch_size: int = 128,
        steps_per_epoch: int = 100,
        test_rows: int = 4000,
        seed: int = 0,
        **world: Any,
    ) -> None:
        super().__init__()
        if min(batch_size, steps_per_epoch, test_rows) < 1:
            raise UserError(
                "batch_size, steps_per_epoch and test_rows must be positive, "
                f"not {batch_size}, {steps_per_epoch} and {test_rows}"
            )
        self.world = ToyWorld(**world)
        self.world.check_rows(batch_size=batch_size, test_rows=test_rows)
        self.batch_size, self.steps_per_epoch, self.test_rows, self.seed = batch_size, steps_per_epoch, test_rows, seed

    def _loader(self, split: int, rows: int, endless: bool = False) -> DataLoader[ToyLabelledBatch]:
        batches = ToyLabelledSplit(self.world, rows, self.batch_size, (self.seed, split), share(self))
        return DataLoader(batches, batch_size=None, sampler=Onwards(len(batches)) if endless else None)

    def row_parts(self) -> list[dict[str, Any]]:
        """Return the settings that generate the rows for fitting, selection and test."""
        sizes = (self.steps_per_epoch, self.test_rows, self.test_rows)
        recipe = {"world": self.world.recipe, "batch_size": self.batch_size, "seed": self.seed}
        return [{**recipe, "split": split, "size": size} for split, size in enumerate(sizes)]

    def train_dataloader(self) -> DataLoader[ToyLabelledBatch]:
        return self._loader(TRAIN, self.steps_per_epoch * self.batch_size, endless=True)

    def val_dataloader(self) -> DataLoader[ToyLabelledBatch]:
        return self._loader(SELECT, self.test_rows)

    def test_dataloader(self) -> DataLoader[ToyLabelledBatch]:
        return self._loader(TEST, self.test_rows)

    predict_dataloader = test_dataloader


class ToyDataModule(SteeringDataModule):
    """Pairs for steering the toy network: some to fit, some to choose the strength, held-out negatives to test.

    Args:
        pairs: pairs for fitting a method and choosing its strength.
        select_share: share of the pairs set aside for choosing; fewer than 8 pairs all serve for both.
        select_most: maximum number of pairs set aside for choosing.
        target: the attribute to steer, or several that are steered together.
        target_value: the value that the network should read for them.
        paired: whether a positive keeps the negative's other attributes, or draws them again.
        test_rows: held-out negatives.
        batch_size: pairs in a batch, shared out over all processes.
        seed: draws the samples.
        world: what :class:`ToyWorld` takes.
    """

    subject = "attributes"

    @ranged
    def __init__(
        self,
        pairs: int = 64,
        select_share: float = 0.25,
        select_most: int = 200,
        target: int | list[int] = 0,
        target_value: int = 0,
        paired: bool = True,
        test_rows: int = 2000,
        batch_size: int = 256,
        seed: int = 0,
        **world: Any,
    ) -> None:
        super().__init__()
        self.world = ToyWorld(**world)
        self.target = [target] if isinstance(target, int) else list(target)
        if pairs < 1:
            raise UserError(f"pairs must be at least 1, not {pairs}: there is nothing to learn from")
        if not self.target or len(set(self.target)) < len(self.target) or len(self.target) >= self.world.attributes:
            raise UserError(f"target names at least one attribute, each once, and never all of them: {self.target}")
        for attribute in self.target:
            if not 0 <= attribute < self.world.attributes:
                raise UserError(
                    f"target attribute {attribute} does not exist: there are {self.world.attributes}, counted from 0"
                )
        if not 0 <= target_value < self.world.values:
            raise UserError(f"target value {target_value} does not exist: there are {self.world.values}, from 0")
        if not 0 < select_share < 1 or select_most < 1:
            raise UserError(f"select_share lies in (0, 1) and select_most above 0, not {select_share}, {select_most}")
        if min(test_rows, batch_size) < 1:
            raise UserError(f"test_rows and batch_size must be positive, not {test_rows} and {batch_size}")
        self.world.check_rows(pairs=pairs, test_rows=test_rows, batch_size=batch_size)
        self.pairs, self.target_value, self.paired, self.test_rows = pairs, target_value, paired, test_rows
        self.batch_size, self.seed = batch_size, seed
        set_aside = min(int(pairs * select_share), select_most)
        self.select_rows, self.fit_rows = (pairs, pairs) if pairs < 8 else (set_aside, pairs - set_aside)
        self._select_split = TRAIN if pairs < 8 else SELECT
        names = ", ".join(map(str, self.target))
        self.task = (
            f"toy, attribute {names} to value {target_value}, {pairs} {'pairs' if paired else 'unpaired samples'}"
        )

    def _loader(self, split: int, rows: int, paired: bool = True) -> DataLoader[ToyPairBatch]:
        seeds, rank_slice = (self.seed, split), share(self)
        target = (self.target, self.target_value, paired)
        return DataLoader(ToyPairSplit(self.world, rows, self.batch_size, seeds, rank_slice, *target), batch_size=None)

    def row_parts(self) -> list[list[tuple[Any, Any]]]:
        """Return the settings that generate each row's input and target, for fitting, selection and test."""
        recipe = [self.world.recipe, self.batch_size, self.seed, self.target, self.target_value]
        parts = (
            (TRAIN, self.fit_rows, self.paired),
            (self._select_split, self.select_rows, self.paired),
            (TEST, self.test_rows, True),
        )
        return [[([*recipe, split, row], paired) for row in range(rows)] for split, rows, paired in parts]

    def train_dataloader(self) -> DataLoader[ToyPairBatch]:
        return self._loader(TRAIN, self.fit_rows, self.paired)

    def val_dataloader(self) -> DataLoader[ToyPairBatch]:
        return self._loader(self._select_split, self.select_rows, self.paired)

    def test_dataloader(self) -> list[DataLoader[ToyPairBatch]]:
        """Return loaders of held-out pairs, and of the pairs that the method was fitted to."""
        return [self._loader(TEST, self.test_rows), self._loader(TRAIN, self.fit_rows, self.paired)]

    def predict_dataloader(self) -> DataLoader[ToyPairBatch]:
        return self._loader(TEST, self.test_rows)
