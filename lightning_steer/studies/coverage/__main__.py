"""``make coverage``: simulate the missing cells of all intervals and certificates, then write the table."""

import argparse
import hashlib
import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from lightning_steer import statistics
from lightning_steer.report.files import write_json, write_text
from lightning_steer.studies.coverage import page
from lightning_steer.studies.coverage.cells import run, select


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the options of the study."""
    parser = argparse.ArgumentParser(prog="python -m lightning_steer.studies.coverage", description=__doc__)
    add = parser.add_argument
    add("--sets", type=int, default=4000, help="simulated data sets a cell")
    add("--tables", nargs="+", default=[""], help="only tables whose name contains one of these words")
    add("--out", type=Path, default=Path("logs/coverage"), help="where the numbers of each cell go")
    add("--page", type=Path, default=Path("docs/coverage.md"), help="where the table goes")
    add("--processes", type=int, default=2, help="cells that run at a time, on a core each")
    options = parser.parse_args(argv)
    if min(options.sets, options.processes) < 1:
        parser.error(f"--sets and --processes must be at least 1, not {options.sets} and {options.processes}")
    return options


def main(argv: list[str] | None = None) -> int:
    """Run the missing cells, write the page, print the summary."""
    options, start = arguments(argv), time.monotonic()
    cells = select(options.tables)
    paths = [options.out / f"{options.sets}-{_code()}" / f"{_slug(cell)}.json" for cell in cells]
    missing = [i for i, path in enumerate(paths) if not path.is_file()]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, context) as pool, tqdm(total=len(missing), desc="coverage") as bar:
        jobs = {pool.submit(run, i, options.tables, options.sets): i for i in missing}
        for job in as_completed(jobs):
            rows, seconds = job.result()
            write_json(paths[jobs[job]], {"rows": rows, "seconds": seconds})
            bar.update()
    parts = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    rows = [row for part in parts for row in part["rows"]]
    seconds = sum(part["seconds"] for part in parts)
    write_text(options.page, page.text(rows, options.sets, seconds))
    print(page.summary(rows))
    print(f"{time.monotonic() - start:.0f} s; the table is in {options.page}, the numbers are in {options.out}")
    return 0


def _slug(cell: Any) -> str:
    return hashlib.sha256(f"{cell.table}/{cell.design}".encode()).hexdigest()[:16]


def _code() -> str:
    """Return a digest of the code that makes the numbers, so that numbers of other code are not reused."""
    folders = Path(statistics.__file__).parent, Path(__file__).parent
    ignored = ("__main__.py", "page.py", "verdicts.py")
    files = sorted(path for folder in folders for path in folder.glob("*.py") if path.name not in ignored)
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


if __name__ == "__main__":
    sys.exit(main())
