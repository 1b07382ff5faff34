"""The outcomes of a test row by row, in the form that ``judge`` reads: ``outcomes.parquet`` beside the report."""

import io
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lightning_steer.metrics.evaluation import Evaluation
from lightning_steer.statistics.kinds import Share

NAME = "outcomes.parquet"


def packed(
    tested: Mapping[str, Tensor], evaluation: Evaluation, strengths: Sequence[float], identity_strength: float
) -> bytes:
    """Return a Parquet file with a line for each row, strength and measure: item, setting, measure, value, cluster.

    Args:
        tested: columns ``baseline/measure [n, 1]``, ``strength/measure [n, strengths]`` and ``cluster [n]``.
        evaluation: names the measure that decides and those of the dose-response, which are written.
        strengths: of the columns ``strength/...``.
        identity_strength: the setting of the baseline.
    """
    import pyarrow as pa
    from pyarrow import parquet

    tried = [i for i, strength in enumerate(strengths) if strength != identity_strength]
    settings = [identity_strength, *(strengths[i] for i in tried)]
    cluster, rows = tested["cluster"].reshape(-1).tolist(), len(tested["cluster"])
    measures = [name for name in dict.fromkeys((evaluation.success, *evaluation.shown)) if f"strength/{name}" in tested]
    values: list[str] = []
    for name in measures:
        table = torch.cat([tested[f"baseline/{name}"], tested[f"strength/{name}"][:, tried]], 1).flatten().tolist()
        yes_or_no = isinstance(evaluation.kinds.get(name), Share)
        values += [("true" if value else "false") if yes_or_no else repr(float(value)) for value in table]
    columns = {
        "item": [row for _ in measures for row in range(rows) for _ in settings],
        "setting": settings * rows * len(measures),
        "measure": [name for name in measures for _ in range(rows * len(settings))],
        "value": values,
    }
    if len(set(cluster)) < rows:  # else rows are independent
        columns["cluster"] = [key for _ in measures for key in cluster for _ in settings]
    file = io.BytesIO()
    parquet.write_table(pa.table(columns), file)
    return file.getvalue()
