"""The study's headline table: every method in every model and mixture, averaged over the tasks."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lightning_steer.studies.mera.estimates import Key, deployed, over_draws, shown


def table(results: Mapping[Key, Mapping[str, Any]]) -> str:
    """Return a Markdown table of the deployed SPI (mean over tasks, range over draws) and the certified share."""
    groups = list(dict.fromkeys(key[:2] for key in results))
    first = next(iter(results.values()))
    lines = [
        f"| SPI deployed (certified) | {' | '.join(f'{model}, {mixture}' for model, mixture in groups)} |",
        f"|---|{'---|' * len(groups)}",
    ]
    for name in next(iter(first.values()))["methods"]:
        row = []
        for group in groups:
            draws = [
                [cell["methods"][name] for cell in result.values()]
                for key, result in results.items()
                if key[:2] == group
            ]
            spi = over_draws(float(np.mean([deployed(method, "spi") for method in draw])) for draw in draws)
            certified = [method["certified"] for draw in draws for method in draw]
            row.append(f"{shown(spi)} ({sum(certified)}/{len(certified)})")
        lines.append(f"| {name} | {' | '.join(row)} |")
    n, tasks = len({key[2] for key in results}), len(first)
    rows = next(iter(first.values()))["rows"]
    lines.append(
        f"\nMeans over {tasks} tasks; in brackets the least and the largest of n = {n} draws of prompts and splits, "
        f"each with {rows['train']:,} training, {rows['calibration']} calibration and {rows['test']:,} test prompts. "
        "Who is not certified leaves the model as it is: SPI 0, without a range where that is so in every draw. "
        "The range describes these draws and is no 95 % interval."
    )
    return "\n".join(lines)
