"""``python -m lightning_steer.report logs/``: all runs below a folder in one table; with ``--html`` as a page too."""

import os
import sys
from pathlib import Path

from lightning_steer.arguments import Parser
from lightning_steer.errors import UserError
from lightning_steer.escapes import say
from lightning_steer.files import read_text
from lightning_steer.report import html, runs, shape
from lightning_steer.report.files import write_text


def main(arguments: list[str] | None = None) -> int:
    """Print the table and write it beside the runs as ``runs.md``, ``runs.csv`` and, if asked for, ``report.html``."""
    parser = Parser(prog="python -m lightning_steer.report", description=__doc__)
    parser.add_argument("folder", type=Path, help="where to look for report.json files, for example logs/")
    parser.add_argument("--html", action="store_true", help="write report.html too: one page that needs nothing else")
    options = parser.parse_args(arguments)
    folder = options.folder
    if not folder.is_dir():
        say(f"lightning_steer: {folder} is not a folder", error=True)
        return 2
    try:
        reports = runs.read(folder)
        for report in reports:
            shape.check(report)
        configurations = {report["run"]: _configuration(folder / report["run"]) for report in reports}
        if not reports:
            raise UserError(f"no report.json below {folder}; a `test` run writes one")
        write_text(folder / "runs.md", runs.as_markdown(reports))
        write_text(folder / "runs.csv", runs.as_csv(reports))
        if options.html:
            write_text(folder / "report.html", html.page(reports, configurations))
    except (ValueError, OSError, RecursionError) as error:
        say(f"lightning_steer: {error}", error=True)
        return 2
    if options.html:
        say(f"Open {folder / 'report.html'} in a browser.\n")
    say(runs.as_markdown(reports), end="")
    say(f"\n{len(reports)} runs; also in {folder / 'runs.md'} and {folder / 'runs.csv'}")
    return 0


def _configuration(folder: Path) -> str:
    """Return the run's configuration, as its test or else its fit saved it."""
    for name in ("test.yaml", "fit.yaml"):
        if os.path.lexists(folder / name):
            return read_text(folder / name)
    return ""


if __name__ == "__main__":
    sys.exit(main())
