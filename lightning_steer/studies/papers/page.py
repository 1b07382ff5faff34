"""``python -m lightning_steer.studies.papers.page``: write docs/papers.md, published cells beside empty ones."""

import argparse
import json
import sys
from pathlib import Path

from lightning_steer.plan.known import KNOWN, access
from lightning_steer.report.files import write_json, write_text
from lightning_steer.studies.papers.costs import ExperimentCost, costs, lines
from lightning_steer.studies.papers.listed import PAPERS
from lightning_steer.studies.papers.paper import Paper

HEAD = """\
# The papers' experiments on their own models

One command repeats the experiment of each paper, on the paper's own models. **We have not run any of them on these
models, so our cells are empty.** Each command writes its own table, `logs/papers/NAME/table.md`, with our numbers
("ours") beside the published ones ("theirs"). A published number is given where we know its source; otherwise the
cell says "not known here".

Tests run every experiment from end to end on models with random weights and few dimensions, of the same family, depth
and tokenizer class, with a few rows in the true formats (`tests/test_papers_run.py`). So the options, the formats and
the tables are tested. Memory, speed and the true tokenizers are not.

`python -m lightning_steer.studies.papers NAME` runs what is not finished, then writes the table. NAME is a heading
below. Begin with `--plan`, which prints the cost and runs nothing.

A finished run is kept and not run again, unless an option has changed. A run that fails does not stop the others: the
command names it at the end and exits with 1. If a model is missing, the command says what to download and how large
it is. `--models` takes other models, or folders; `--data` is the folder of clones and local copies (default `data`);
`--only` runs some behaviours, or tasks and positions. All other options are passed on to `fit` and `test`, such as
`--trainer.devices=1`.

Operations and memory are estimates of `plan`, not measurements, from the models' own configurations and real data. A
"~" means that four bytes of text count as one token. Memory is for the largest batch in bfloat16; a smaller
`tokens_per_batch` needs less. The memory was planned before log-probabilities were computed in smaller pieces, so
today's plans may be lower. StereoSet, SMS spam, MMLU and the released open-ended pairs were counted as they are. For
the others we counted stand-ins: CAA's pairs of sycophancy for every behaviour, financial texts with questions that we
worded for the finance tasks, and 160 made-up prompts of 67 bytes for refusal_direction. `--plan` counts your
own copies with the model's tokenizer. MERA's experiment reads the label right after the prompt (position `last`) or
where the model's own text first gives one (position `exact`). The text that is generated for `exact` is not counted,
so the cost is higher than stated.
"""
COSTS = Path(__file__).parent / "costs.json"


def downloads(paper: Paper) -> list[str]:
    """Return what has to be downloaded, and how large it is."""
    lines = []
    for name in paper.models:
        size = f"{KNOWN[name].download / 1e9:.1f} GB" if name in KNOWN else "of unknown size"
        lines.append(f"- `hf download {name}`, {size} ({access(name)})")
    lines += [f"- `git clone https://github.com/{c.address} data/{c.folder}`, size not recorded" for c in paper.clones]
    lines += [
        f"- {name}, read from the hub where no local copy lies in `data`, size not recorded" for name in paper.hub_data
    ]
    return [*lines, *(f"- your own `data/{name}`" for name in paper.own_files)]


def section(paper: Paper, costs: list[ExperimentCost]) -> list[str]:
    """Return the section of one experiment."""
    return [
        f"## {paper.name}",
        "",
        f"Repeats {paper.source}. `configs/papers/{paper.name}.yaml` says which results would count as a reproduction.",
        "",
        f"Command: `{paper.command}`",
        "",
        "To download or to provide:",
        "",
        *downloads(paper),
        "",
        *paper.table({}, paper.models),
        *(lines(costs) if costs else ["Its cost was not counted yet: `--plan` counts it."]),
        "",
    ]


def text() -> str:
    """Return the page, from the published cells and the costs that were computed."""
    stored = json.loads(COSTS.read_text())
    sections = [
        section(paper, [ExperimentCost(*row) for row in stored.get(name, [])]) for name, paper in PAPERS.items()
    ]
    return "\n".join([HEAD, *(line for lines in sections for line in lines)]).rstrip() + "\n"


def main(argv: list[str] | None = None) -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(prog="python -m lightning_steer.studies.papers.page", description=__doc__)
    add = parser.add_argument
    add("--page", type=Path, default=Path("docs/papers.md"), help="where the page goes")
    add(
        "--configs",
        type=Path,
        help="count the costs anew, with OWNER/NAME/config.json of every model below this folder",
    )
    add("--data", type=Path, default=Path("data"), help="folder of clones and of local copies, to count the costs with")
    options = parser.parse_args(argv)
    if options.configs is not None:
        write_json(COSTS, {paper.name: counted(paper, options.configs, options.data) for paper in PAPERS.values()})
    write_text(options.page, text())
    return 0


def counted(paper: Paper, configs: Path, data: Path) -> list[ExperimentCost]:
    """Return the costs of an experiment on its own models, in folders of their names; equal ones cost the same."""
    total, known = list[ExperimentCost](), dict[bytes, list[ExperimentCost]]()
    for name in paper.models:
        content = (configs / name / "config.json").read_bytes()
        if content not in known:
            known[content] = costs(paper, [str(configs / name)], data)
        total += [cost._replace(model=name) for cost in known[content]]
    return total


if __name__ == "__main__":
    sys.exit(main())
