"""Simulate choices under several promises, and write docs/judge-coverage.md; goes on where it was stopped."""

import argparse
import hashlib
import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from tqdm.auto import tqdm

from lightning_steer.report.files import write_json, write_text
from lightning_steer.statistics import bounds
from lightning_steer.studies.coverage import promises
from lightning_steer.studies.coverage.choices import cells as designs
from lightning_steer.studies.coverage.choices import page
from lightning_steer.studies.coverage.choices.cells import choice_cells, timed


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the options of the study."""
    parser = argparse.ArgumentParser(prog="python -m lightning_steer.studies.coverage.choices", description=__doc__)
    add = parser.add_argument
    add("--sets", type=int, default=2000, help="simulated tables a design")
    add("--units", type=int, nargs="+", default=[100, 250, 1000], help="only designs with so many rows or clusters")
    add("--out", type=Path, default=Path("logs/judge-coverage"), help="where the numbers of each cell go")
    add("--page", type=Path, default=Path("docs/judge-coverage.md"), help="where the page goes")
    add("--processes", type=int, default=2, help="cells that run at a time, on a core each")
    options = parser.parse_args(argv)
    if min(options.sets, options.processes) < 1:
        parser.error(f"--sets and --processes must be at least 1, not {options.sets} and {options.processes}")
    return options


def main(argv: list[str] | None = None) -> int:
    """Run the missing cells, write the page, print the summary."""
    options = arguments(argv)
    cells = [cell for cell in choice_cells() if cell.units in options.units]
    folder = options.out / f"{options.sets}-{_code()}"
    paths = {cell: folder / f"{cell.design.replace(', ', '-').replace(' ', '-')}.json" for cell in cells}
    missing = [cell for cell, path in paths.items() if not path.is_file()]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, context) as pool, tqdm(total=len(missing), desc="choices") as bar:
        jobs = {pool.submit(timed, cell, options.sets): cell for cell in missing}
        for job in as_completed(jobs):
            write_json(paths[jobs[job]], job.result())
            bar.update()
    parts = [json.loads(path.read_text(encoding="utf-8")) for path in paths.values()]
    rows = [row for part in parts for row in part["rows"]]
    write_text(options.page, page.text(rows, options.sets, sum(part["seconds"] for part in parts)))
    print(page.summary(rows))
    print(f"The page is {options.page}, the numbers are in {folder}")
    return 0


def _code() -> str:
    """Return a digest of the code that makes the numbers, so that numbers of other code are not reused."""
    paths = [Path(str(module.__file__)) for module in (bounds, promises, designs)]
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:12]


if __name__ == "__main__":
    sys.exit(main())
