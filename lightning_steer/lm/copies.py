"""Which rows run for the steered copies of a batch: copies that no edit has changed share the unsteered row's pass."""

import torch
from torch import Tensor


class Copies:
    """Copies of R rows, each steered in its own way, and the m rows that run for all of them.

    As long as no edit has changed a copy of a row, bit for bit, it is the unsteered row, which runs once for all such
    copies. At each site the copies that its edit changes leave it, so a copy runs by itself from the first layer that
    changes it. Where gradients are taken every copy runs: one that is unchanged so far is about to be trained.

    Args:
        copies: number of copies of each row.
        rows: R.
        device: of the rows.
        shared: whether unchanged copies run together; else all ``copies * R`` rows run.
    """

    def __init__(self, copies: int, rows: int, device: torch.device, shared: bool) -> None:
        self.shared = shared
        self.changed = torch.zeros(copies, rows, dtype=torch.bool, device=device)
        of = torch.arange(rows, device=device)
        self.rows = of if shared else of.repeat(copies)
        """``[m]`` which of the R rows each row is that runs."""
        self.place = of.expand(copies, -1) if shared else torch.arange(copies * rows, device=device).view(copies, -1)
        """``[copies, R]`` the place of each copy among the rows that run."""

    def split(self, h: Tensor) -> Tensor:
        """Return the rows that run, ``[m, ...]``, as ``[copies, R, ...]``."""
        copies, rows = self.place.shape
        if len(h) in (rows, copies * rows):  # nothing has changed yet, or no copy shares its row
            return h.unflatten(0, (-1, rows)).expand(copies, *[-1] * h.dim())
        return h[self.place.to(h.device)]

    def join(self, before: Tensor, after: Tensor) -> Tensor:
        """Return the rows that run from a site on, ``[m, ...]``.

        Args:
            before: ``[copies, R, ...]`` as :meth:`split` gave them to the site's edit.
            after: the same shape, as the edit returned them.
        """
        if not self.shared:
            return after.flatten(0, 1)
        if after.requires_grad:
            self.changed = torch.ones_like(self.changed)
        else:
            self.changed = self.changed.to(after.device) | (before != after).flatten(2).any(2)
        first, row = (~self.changed).int().argmax(0), torch.arange(after.shape[1], device=after.device)
        runs = self.changed.clone()
        runs[first, row] = True  # for all unchanged copies; if there is none, this one runs anyway
        place = runs.flatten().cumsum(0).view_as(runs) - 1
        self.place = torch.where(self.changed, place, place[first, row])
        self.rows = runs.nonzero()[:, 1]
        return after.flatten(0, 1) if len(self.rows) == runs.numel() else after[runs]
