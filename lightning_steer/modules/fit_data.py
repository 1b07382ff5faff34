"""The rows that a method is fitted to: activations of pairs of inputs or of labelled inputs."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from lightning_steer.data.base import LabelledBatch, SteeringBatch
from lightning_steer.errors import UserError
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.metrics.evaluation import Evaluation
from lightning_steer.networks.backbone import Backbone
from lightning_steer.records import Activations
from lightning_steer.statistics.kinds import Share

NO_LABEL = Share()


def observe(backbone: Backbone, batch: LabelledBatch) -> tuple[Tensor, dict[str, Tensor]]:
    """Return scores ``[B, options]`` and activations ``{site: [B, d]}``, recorded ones if there are any."""
    return batch.seen or backbone.observe(batch.x)


@torch.no_grad()
def read(
    backbone: Backbone, evaluation: Evaluation, batch: SteeringBatch, sensitivity: bool = False
) -> dict[str, Tensor]:
    """Return columns ``h/site [B, k, d]``, ``error [B, k]`` and ``value [B, k, m]`` of k examples in each row.

    A pair gives two examples: the negative (error 1), then the positive (error 0). A labelled question gives one, with
    the network's own error. With ``sensitivity`` there are columns ``g/site [B, k, m, d]``, too.
    """
    examples, alone = ([batch.x], True) if batch.pair is None else (batch.pair, False)
    seen = [backbone.sensitivity(inputs, alone) for inputs in examples] if sensitivity else [{}]
    gradients = {f"g/{site}": torch.stack([part[site] for part in seen], 1) for site in seen[0]}
    if batch.pair is None:
        scores, h = observe(backbone, cast(LabelledBatch, batch))  # whose rows alone have no pair
        error = evaluation.error(scores, batch)
        columns = {"error": error.unsqueeze(1), "value": batch.values}
        return columns | {f"h/{site}": rows.unsqueeze(1) for site, rows in h.items()} | gradients
    negative, positive = (backbone.activations(inputs) for inputs in batch.pair)
    error = torch.tensor([1.0, 0.0]).expand(len(batch.row), 2)
    columns = {"error": error.to(batch.row.device), "value": batch.values}
    return columns | {f"h/{site}": torch.stack([negative[site], positive[site]], 1) for site in negative} | gradients


def activations(columns: Mapping[str, Tensor], site: str, rows: int, paired: bool, heads: int = 1) -> Activations:
    """Return the first ``rows`` rows at a site of so many heads, all first examples before all second ones.

    Only values that differ within pairs are kept: the attributes that are steered.
    """
    h, error, value = (columns[name][:rows].transpose(0, 1) for name in (f"h/{site}", "error", "value"))
    if len(value) == 2:
        value = value[:, :, (value[0] != value[1]).any(0)]
    gradients = columns[f"g/{site}"][:rows].transpose(0, 1).flatten(0, 1) if f"g/{site}" in columns else None
    return Activations(h.flatten(0, 1), error.flatten(), value.long().flatten(0, 1), paired, heads, gradients)


def no_rows(method: SteeringMethod) -> Activations:
    """Return no rows: a method that is trained through the output sets up its parameters by them.

    Raises:
        ValueError: the method, or one inside it, needs rows, so that it cannot be fitted in the same run.
    """
    parts = [part for part in method.modules() if isinstance(part, SteeringMethod)]
    if any(part.classes or not part.trained for part in parts):
        trained = ", ".join(type(part).__name__ for part in parts if part.trained and not part.classes)
        raise UserError(
            f"{type(method).__name__} holds {trained}, trained through the output, beside what is fitted to rows: fit "
            "each by itself, then use Gated.around or Composed.of"
        )
    return Activations(torch.zeros(0, method.width), torch.zeros(0), torch.zeros(0, 1, dtype=torch.int64), False)


def no_label(data: Any, columns: Mapping[str, Tensor], **of: str) -> dict[str, dict[str, Any]]:
    """Return ``{name: estimate}`` of the share of answers without a label in a column, for each ``name="column"``.

    A model that generates its answers may write no label, which counts as an additional label. Otherwise empty.
    """
    if data.answering is None:
        return {}
    is_unlabelled = {name: (columns[column].flatten() == len(data.labels)).cpu() for name, column in of.items()}
    return {name: NO_LABEL.estimate(column.double().numpy())[0]._asdict() for name, column in is_unlabelled.items()}
