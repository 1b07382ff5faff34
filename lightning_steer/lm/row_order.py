"""Keep the order of rows where each has its own strength."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from lightning_steer.errors import UserError

ROW_BY_ROW = "steered_row_by_row"
"""Marks a model that is steered with a separate strength for each row, so that the order of rows must not change."""


@contextmanager
def row_by_row(model: nn.Module) -> Iterator[None]:
    """Make :func:`check_order` reject a reordering of the model's rows inside the block."""
    vars(model)[ROW_BY_ROW] = True
    try:
        yield
    finally:
        vars(model).pop(ROW_BY_ROW, None)


def check_order(model: nn.Module) -> None:
    """Raise ValueError if sorting rows by length would exchange their strengths."""
    if ROW_BY_ROW in vars(model):
        raise UserError(
            "the model is steered with a strength for each row, and scores and activations put rows into batches of "
            "like length: give one strength, or one block for each row"
        )
