"""Intervention fidelity on gemma-2-2b, pretrained and fine-tuned: which choice does steering suppress?"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning_steer.metrics.columns import as_clusters, as_numbers
from lightning_steer.report.tables import cell
from lightning_steer.statistics.kinds import Mean
from lightning_steer.studies.papers.paper import Paper, Planned, published
from lightning_steer.studies.papers.runner import BACKBONE, Runner, depth, short
from lightning_steer.studies.published.markdown import table as markdown

MODELS = ("google/gemma-2-2b", "google/gemma-2-2b-it")
BASE, METHOD = "configs/steer_stereoset_notebook.yaml", "configs/methods/mean_difference.yaml"
NOTEBOOK = ([5, 11, 17], [5], [11], [17])
COLUMNS = ("model", "blocks", "strength", "stereotype's share", "unrelated one's share", "difference", "fidelity", "n")


def every_second(model: str) -> list[list[int]]:
    """Return every second block, those of the notebook among them."""
    return [[layer] for layer in range(1, depth(model), 2)]


def read(module: Any) -> dict[str, Any]:
    """Return a run's figures, with the change of the unrelated sentence's share less that of the stereotype's."""
    columns, metrics = module.tested.compute(), module.report["metrics"]
    change = {
        name: columns[f"steered/{name}"] - columns[f"baseline/{name}"] for name in ("p_stereotype", "p_unrelated")
    }
    difference = as_numbers(change["p_unrelated"] - change["p_stereotype"])
    cluster = as_clusters(columns["cluster"].reshape(-1))
    names = (
        "strength",
        "fidelity",
        "p_stereotype_change",
        "p_unrelated_change",
        "stereotype_change",
        "unrelated_change",
    )
    return {
        **{name: metrics[name] for name in names},
        "difference": Mean(-2, 2).estimate(difference, cluster)[0]._asdict(),
    }


def options(model: str, layers: Sequence[int], data: Path) -> list[str]:
    """Return the options of a run; the data are read from a local copy if there is one."""
    local = data / "stereoset/dev.json"
    source = [f"--data.init_args.source={local}"] if local.is_file() else []
    return [f"{BACKBONE}.llm={model}", f"{BACKBONE}.layers={list(layers)}", *source]


def run(models: Sequence[str], data: Path, runner: Runner, notebook: bool) -> dict[str, dict[str, Any] | None]:
    """Run every model at every layer."""
    results, configs = {}, [BASE, f"configs/papers/{runner.name}.yaml", METHOD]
    for model in models:
        for layers in NOTEBOOK if notebook else every_second(model):
            name = f"{short(model)}_blocks_{'_'.join(map(str, layers))}"
            results[name] = runner.run(name, configs, options(model, layers, data), read)
    return results


def plans(model: str, data: Path, notebook: bool) -> list[Planned]:
    """Return the runs of a model: that of a block in the middle stands for all."""
    name = "fidelity_notebook" if notebook else "fidelity"
    times = len(NOTEBOOK) if notebook else len(every_second(model))
    return [
        ("fit and test at a block", times, (BASE, f"configs/papers/{name}.yaml", METHOD), options(model, [11], data))
    ]


def table(results: Mapping[str, Any], models: Sequence[str]) -> list[str]:
    """Return ours beside what the source says, which has no number."""
    claims = published("fidelity")["claims"]
    rows = []
    for name, result in results.items():
        model, _, layers = name.partition("_blocks_")
        if result is not None:
            shares = (result[f"p_{choice}_change"] for choice in ("stereotype", "unrelated"))
            values = [cell(estimate) for estimate in (*shares, result["difference"], result["fidelity"])]
            strength, n = f"{result['strength']['value']:g}", result["difference"]["n"]
            rows.append((model, layers.replace("_", ", "), strength, *values, n))
    rows = rows or [(short(model), *[""] * (len(COLUMNS) - 1)) for model in models]
    lines = markdown(("theirs", "which choice steering suppresses"), claims.items())
    note = (
        "Ours: changes of shares with 95 % intervals over target terms; difference: unrelated minus stereotype. "
        "Fidelity: the share of choices moved as meant less those moved otherwise, less changes of the unrelated "
        "choice's rank (docs/fidelity.md)."
    )
    return [*lines, f"{published('fidelity')['source']}", "", note, "", *markdown(COLUMNS, rows)]


FIDELITY, NOTEBOOK_SUBSET = (
    Paper(
        name,
        source,
        MODELS,
        ((BASE,), (METHOD,)),
        partial(run, notebook=notebook),
        table,
        partial(plans, notebook=notebook),
        hub_data=("McGill-NLP/stereoset",),
    )
    for name, source, notebook in (
        ("fidelity", "Raedler et al., MOSS @ ICML 2025: its claim, all data", False),
        ("fidelity_notebook", "the notebook of Raedler et al.: its claim, 30 examples a bias type", True),
    )
)
