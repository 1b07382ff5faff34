"""What a method is fitted to: rows of the residual stream, from pairs of inputs or from graded ones."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_steer.data.base import LabelledBatch
from lightning_steer.metrics.evaluation import Evaluation
from lightning_steer.networks.backbone import Backbone
from lightning_steer.records import Activations
from lightning_steer.statistics.kinds import Share

NO_LABEL = Share()


def observe(backbone: Backbone, batch: LabelledBatch) -> tuple[Tensor, dict[str, Tensor]]:
    """``[B, options]`` scores and ``{site: [B, d]}``: what was recorded, or else what the network does now."""
    return batch.seen or backbone.observe(batch.x)


@torch.no_grad()
def read(backbone: Backbone, evaluation: Evaluation, batch: Any) -> dict[str, Tensor]:
    """Columns ``h/site [B, k, d]``, ``error [B, k]`` and ``value [B, k, m]`` of k lessons in each row of a batch.

    A pair gives two: the negative (error 1), then the positive (error 0). A graded question gives one, with the
    network's own error.
    """
    if batch.pair is None:
        scores, h = observe(backbone, batch)
        error = evaluation.error(scores, batch)
        columns = {"error": error.unsqueeze(1), "value": batch.values}
        return columns | {f"h/{site}": rows.unsqueeze(1) for site, rows in h.items()}
    negative, positive = (backbone.activations(inputs) for inputs in batch.pair)
    error = torch.tensor([1.0, 0.0]).expand(len(batch.row), 2)
    columns = {"error": error.to(batch.row.device), "value": batch.values}
    return columns | {f"h/{site}": torch.stack([negative[site], positive[site]], 1) for site in negative}


def activations(columns: Mapping[str, Tensor], site: str, rows: int, paired: bool) -> Activations:
    """The first ``rows`` rows at a site, all first lessons before all second ones.

    Of the values those are kept that differ within pairs: the attributes that are to be steered.
    """
    h, error, value = (columns[name][:rows].transpose(0, 1) for name in (f"h/{site}", "error", "value"))
    if len(value) == 2:
        value = value[:, :, (value[0] != value[1]).any(0)]
    return Activations(h.flatten(0, 1), error.flatten(), value.long().flatten(0, 1), paired)


def no_label(data: Any, columns: Mapping[str, Tensor], **of: str) -> dict[str, dict[str, Any]]:
    """``{name: estimate}``: in what share of a column of answered labels there is none, for ``name="column"``.

    A model that answers in its own words may write no label, which counts as one label more; empty for any other.
    """
    if data.answering is None:
        return {}
    none = {name: (columns[column].flatten() == len(data.labels)).cpu() for name, column in of.items()}
    return {name: NO_LABEL.estimate(column.double().numpy())[0]._asdict() for name, column in none.items()}
