"""Tables of rows keep every number as it is, whatever its dtype, and however the rows are shared out."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from test_stereoset_metric import ranks

from lightning_steer.metrics.stereoset import association
from lightning_steer.metrics.table import Table


def exact_columns() -> dict[str, torch.Tensor]:
    """Scores that differ by 1e-6 at -100, and clusters that float32 cannot tell apart: of sizes 1, 1 and 2."""
    return {
        "row": torch.arange(4),
        "score": torch.tensor([-100, -100 + 1e-6, -100, -100 - 1e-6], dtype=torch.float64),
        "cluster": torch.tensor([2**24, 2**24 + 1, 2**40 + 1, 2**40 + 1]),
        "right": torch.tensor([True, False, True, True]),
        "half": torch.ones(4, 2, dtype=torch.bfloat16),
        "nothing": torch.zeros(4, 0),
    }


def unharmed(gathered: dict[str, torch.Tensor]) -> None:
    columns = exact_columns()
    assert gathered.keys() == columns.keys() - {"row"}
    for name, column in gathered.items():
        assert column.dtype == (torch.float32 if name == "half" else columns[name].dtype)
        assert torch.equal(column, columns[name].to(column.dtype))


def test_table_keeps_every_dtype_so_that_small_gaps_and_large_numbers_survive() -> None:
    for sizes in ([4], [1, 3], [0, 2, 2]):
        table = Table()
        edges = [0, *torch.tensor(sizes).cumsum(0).tolist()]
        for begin, end in pairwise(edges):
            table.update(**{name: column[begin:end] for name, column in exact_columns().items()})
        unharmed(table.compute())


def test_table_keeps_every_dtype_over_processes(tmp_path: Path) -> None:
    for columns in ranks(Table(), exact_columns(), tmp_path):
        unharmed(columns)


def test_large_cluster_numbers_do_not_merge_in_the_official_scores() -> None:
    """Three terms of which only the first prefers the stereotype: SS is 1/3, and 1/2 where the last two merge."""
    scores = torch.tensor([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [1.0, 2.0, 0.0]], dtype=torch.float64)
    table = Table()
    table.update(row=torch.arange(3), scores=scores, term=torch.tensor([2**25, 2**24, 2**24 + 1]))
    assert float(association(**table.compute()).ss) == pytest.approx(100 / 3)


def test_a_row_that_is_counted_twice_is_refused() -> None:
    table = Table()
    table.update(torch.tensor([0, 1, 1]), a=torch.zeros(3))
    with pytest.raises(ValueError, match="counted twice"):
        table.compute()


def test_table_refuses_columns_that_change_their_kind() -> None:
    table = Table()
    table.update(torch.tensor([0]), a=torch.zeros(1))
    with pytest.raises(ValueError, match="columns stay the same"):
        table.update(torch.tensor([1]), a=torch.zeros(1, dtype=torch.float64))


@pytest.mark.parametrize("rows", [1, 2])
def test_columns_of_any_width_stand_beside_each_other(rows: int) -> None:
    columns = {"loss": torch.rand(rows, 3), "flag": torch.tensor([True] * rows), "cluster": torch.arange(rows) + 2**40}
    table = Table()
    table.update(torch.arange(rows), **columns)
    for name, column in table.compute().items():
        # torchmetrics gives a single number back without its dimension
        assert torch.equal(column.reshape(columns[name].shape), columns[name])


def test_a_column_of_a_single_number_keeps_its_dimensions() -> None:
    table = Table()
    table.update(torch.tensor([0]), one=torch.zeros(1, 1), flat=torch.zeros(1))
    columns = table.compute()
    assert (columns["one"].shape, columns["flat"].shape) == ((1, 1), (1,))
