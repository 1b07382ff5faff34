"""Repeat a paper's experiment on its own models: ``python -m lightning_steer.studies.papers NAME``.

Runs what is not finished yet, and writes ours beside theirs to ``logs/papers/NAME/table.md``. Other options, such as
``--trainer.devices=1``, are added to every command; those that begin with ``--model`` only where something is steered.
"""

import argparse
import sys
from pathlib import Path

from lightning_steer.errors import UserError
from lightning_steer.escapes import say
from lightning_steer.report.files import write_text
from lightning_steer.studies.papers import costs, listed
from lightning_steer.studies.papers.paper import check_data, check_models
from lightning_steer.studies.papers.runner import Runner


def arguments(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Return the options of the study, and those that are handed on."""
    parser = argparse.ArgumentParser(
        prog="python -m lightning_steer.studies.papers", description=__doc__, allow_abbrev=False
    )
    add = parser.add_argument
    add("name", metavar="NAME", choices=listed.PAPERS, help=f"one of {', '.join(listed.PAPERS)}")
    add("--models", nargs="+", metavar="MODEL", help="hub names or folders, in place of the paper's models")
    add(
        "--only",
        nargs="+",
        metavar="PART",
        default=[],
        help="run these parts only: behaviours, or of mera tasks and positions",
    )
    add("--plan", action="store_true", help="say what it costs, and run nothing")
    add("--data", type=Path, default=Path("data"), help="folder of clones and of local copies of data sets")
    return parser.parse_known_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run and write; what is missing ends it with one sentence and exit code 2, an unfinished cell with exit code 1."""
    options, more = arguments(argv)
    paper = listed.PAPERS[options.name]
    models = options.models or paper.models
    runner = Runner(paper.name, more, options.only)
    try:
        for part in options.only:
            if part not in paper.parts:
                raise UserError(f"{paper.name} has no part {part!r}: it has {', '.join(paper.parts) or 'none'}")
        check_models(models)
        check_data(paper, options.data)
        if options.plan:
            say("\n".join(costs.lines(costs.costs(paper, models, options.data))))
            return 0
        results = paper.run(models, options.data, runner)
        text = "\n".join([f"# {paper.name}", "", f"Repeats: {paper.source}.", "", *paper.table(results, models)])
        write_text(runner.folder / "table.md", text)
    except (OSError, ValueError) as error:
        say(f"lightning_steer: {' '.join(str(error).split())}", error=True)
        return 2
    say(text)
    say(f"Wrote {runner.folder}/table.md.")
    for run, reason in runner.failed.items():
        say(f"Not finished: {run}: {reason}", error=True)
    return int(bool(runner.failed))


if __name__ == "__main__":
    sys.exit(main())
