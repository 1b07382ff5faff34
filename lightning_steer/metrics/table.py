"""Named columns of per-row results, collected over batches and processes, returned in the order of the rows."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lightning_steer.errors import UserError


class Table(Metric):
    """Columns ``{name: [n, ...]}``, the same however the rows are split into batches or over processes.

    ``update`` takes the rows' positions ``[B]`` and any columns ``[B, ...]``; ``compute`` returns them sorted by
    position. Every column keeps its dtype, except that float16 and bfloat16 become float32: integers (labels, clusters)
    and float64 (log-probabilities, whose differences count) come back unchanged. A row that was counted twice or is
    missing raises ValueError, as it would bias every figure.
    """

    full_state_update = False
    rows: list[Tensor]
    cells: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("rows", [], dist_reduce_fx="cat")
        self.add_state("cells", [], dist_reduce_fx="cat")  # bytes: one tensor can hold columns of any dtype
        self.layout: dict[str, tuple[torch.Size, torch.dtype]] = {}

    def update(self, row: Tensor, **columns: Tensor) -> None:
        """Add a batch; raises ValueError if its columns differ from those of earlier batches."""
        stored = {name: _at_least_single(column.detach()) for name, column in columns.items()}
        layout = {name: (column.shape[1:], column.dtype) for name, column in stored.items()}
        if self.rows and layout != self.layout:
            raise UserError(f"a table's columns stay the same in every batch: {self.layout} became {layout}")
        self.layout = layout
        self.rows.append(row)
        self.cells.append(torch.cat([_bytes(column, len(row)) for column in stored.values()], 1))

    def compute(self) -> dict[str, Tensor]:
        """Return all rows in order."""
        row, cells = dim_zero_cat(self.rows), dim_zero_cat(self.cells)
        order = row.argsort()
        if not torch.equal(row[order], torch.arange(len(row), device=row.device)):
            raise UserError(f"rows were lost or counted twice: {len(row)} rows, {len(row.unique())} of them different")
        sizes = [shape.numel() * dtype.itemsize for shape, dtype in self.layout.values()]
        columns = zip(self.layout.items(), cells[order].split(sizes, 1), strict=True)
        return {
            # a copy: the part of a single row is contiguous where it is, and there its bytes need not be aligned
            name: column_bytes.clone(memory_format=torch.contiguous_format).flatten().view(dtype).reshape(-1, *shape)
            if column_bytes.shape[1]
            else column_bytes.new_empty(len(column_bytes), *shape, dtype=dtype)
            for (name, (shape, dtype)), column_bytes in columns
        }

    def _wrap_compute(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        """Give a column of one number its dimensions back, which torchmetrics takes from whatever holds one number."""
        squeezed = super()._wrap_compute(compute)

        @wraps(squeezed)
        def columns(*args: Any, **kwargs: Any) -> dict[str, Tensor]:
            values = squeezed(*args, **kwargs)
            single = {n for n in self.layout if n in values and not values[n].dim()}  # a subclass returns other names
            return {**values, **{n: values[n].reshape(1, *self.layout[n][0]) for n in single}}

        return columns


def _at_least_single(column: Tensor) -> Tensor:
    return column.float() if column.dtype in (torch.float16, torch.bfloat16) else column


def _bytes(column: Tensor, rows: int) -> Tensor:
    """View ``[B, ...]`` as ``[B, bytes]`` uint8."""
    width = column.shape[1:].numel()
    flat = torch.empty(rows, width, dtype=column.dtype, device=column.device)
    flat.copy_(column.reshape(rows, width))  # a view could fail: strides of a single row or column are arbitrary
    return flat.view(torch.uint8) if width else flat.new_empty(rows, 0, dtype=torch.uint8)
