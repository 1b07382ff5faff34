"""One cell of the study: every method at every budget, and the accuracy that bounds them all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm.auto import tqdm

from lightning_steer.studies.toy import adapters, pools
from lightning_steer.studies.toy.networks import clean_accuracy, trained
from lightning_steer.studies.toy.settings import ToyCell

SELECT_MOST, TEST_ROWS = 200, 400


def run(
    cell: ToyCell,
    networks: int,
    sets: int,
    sizes: Sequence[int],
    steps: int,
    methods: Sequence[str] | None,
    folder: Path,
) -> dict[str, Any]:
    """Measure every method, ``{method: {budget: {"exact": [N][T], ...}}}``, and the bounds on it.

    Args:
        cell: network, targets, and their level on their axis.
        networks: number of networks; each has its own world.
        sets: target sets for each network.
        sizes: budgets in pairs, including those for choosing.
        steps: training steps of the trained methods.
        methods: which methods; None for all.
        folder: where trained networks are stored.
    """
    ensemble = trained(cell.network, networks, folder)
    fit, select, test = (
        pools.draw(cell, ensemble, networks, sets, split, rows)
        for split, rows in ((pools.FIT, max(sizes)), (pools.SELECT, SELECT_MOST), (pools.TEST, TEST_ROWS))
    )
    by_method: dict[str, dict[str, Any]] = {}
    for name, (family, strengths) in adapters.CLOSED_FORMS.items():
        for size in sizes if methods is None or name in methods else ():
            rows, selection_rows = adapters.budget(size)
            if size < 8 and name == "LEACE by value" and rows < 2:
                continue
            chosen = select.first(selection_rows) if size >= 8 else fit.first(selection_rows)
            result = adapters.closed_form(family, strengths, ensemble, fit.first(rows), chosen, test)
            by_method.setdefault(name, {})[str(size)] = as_lists(result)
    for name, make in tqdm(adapters.TRAINED.items(), desc="trained methods", leave=False):
        if methods is None or name in methods:
            results = adapters.trained(make, name, ensemble, fit, select, test, sizes, steps)
            by_method[name] = {str(size): as_lists(result) for size, result in zip(sizes, results, strict=True)}
    family_curve = {
        str(size): adapters.strength_family(ensemble, fit.first(adapters.budget(size)[0]), test).tolist()
        for size in sizes
    }
    accuracy, exact = clean_accuracy(ensemble, cell.network, networks)
    bounds = {
        "clean_accuracy": accuracy.tolist(),
        "clean_exact": exact.tolist(),
        "oracle_patch": adapters.result(
            test.h_positive, test.h.new_ones(networks, sets), ensemble, test
        ).exact.tolist(),
        "told_old_value": adapters.told_old_value(ensemble, fit, test).exact.tolist(),
    }
    return {"methods": by_method, "family": {"strengths": adapters.FAMILY, "exact": family_curve}, "bounds": bounds}


def as_lists(result: adapters.AdapterResult) -> dict[str, list[list[float]]]:
    """Return a result as plain numbers ``[N][T]``."""
    values: dict[str, Tensor] = result._asdict()
    return {name: value.tolist() for name, value in values.items()}
