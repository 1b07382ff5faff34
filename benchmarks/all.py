"""Run every benchmark, one after another on a machine that should do nothing else, and write one table.

Each is a process of its own, with the number of threads that its own description names. What they print goes to
``logs/benchmarks/NAME.txt``, their lines to ``benchmarks/results.json``, the table to ``benchmarks/results.md``. A
benchmark that fails is named at the end, and the others' results are kept.

    python benchmarks/all.py                     # half an hour
    python benchmarks/all.py hooks sweep         # some of them; the others' lines stay as they were
"""

import json
import os
import platform
import re
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from lightning_steer.report.files import write_text

HERE = Path(__file__).parent
NO_BENCHMARK = ("all", "gpu", "side_by_side")  # gpu.py writes a table of its own


def scripts() -> dict[str, Path]:
    """All benchmarks, by name."""
    return {path.stem: path for path in sorted(HERE.glob("*.py")) if path.stem not in NO_BENCHMARK}


def run(name: str, script: Path) -> list[dict[str, Any]]:
    """What a benchmark found; raises CalledProcessError if it fails."""
    threads = re.search(r"OMP_NUM_THREADS=(\d+)", script.read_text())
    settings = {"OMP_NUM_THREADS": threads.group(1)} if threads else {}
    began = time.monotonic()
    ran = subprocess.run(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env={**os.environ, **settings}
    )
    write_text(Path("logs/benchmarks") / f"{name}.txt", ran.stdout)
    ran.check_returncode()
    lines = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith('{"benchmark"')]
    day, minutes = date.today().isoformat(), round((time.monotonic() - began) / 60, 1)
    return [{**line, "script": name, "date": day, "script_minutes": minutes} for line in lines]


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Ratios with their bounds, then exponents."""
    lines = [line for of in results.values() for line in of]
    ratios = ["| benchmark | median ratio | single runs | n | bound | holds |", "|---|---|---|---|---|---|"]
    exponents = ["| cost with | exponent | between neighbours | n | times |", "|---|---|---|---|---|"]
    for line in lines:
        span = f"{line['low']:.3g} to {line['high']:.3g}"
        if "exponent" in line:
            what = line["benchmark"].removeprefix("scaling, ")
            exponents.append(f"| {what} | {line['exponent']:.2f} | {span} | {line['n']:g} | {line['told']} |")
        else:
            holds = {True: "yes", False: "NO", None: ""}[line["holds"]]
            told = f"{line['benchmark']}: {line['told']}"
            ratios.append(f"| {told} | {line['ratio']:.4g} | {span} | {line['n']:g} | {line['bound']} | {holds} |")
    dates = sorted({line["date"] for line in lines})
    threads = sorted({line["threads"] for line in lines if "threads" in line})
    where = f"{os.cpu_count()} cores, {platform.machine()}, {' or '.join(map(str, threads))} threads"
    head = f"# Benchmarks\n\nBy `make bench`, {' to '.join(dict.fromkeys((dates[0], dates[-1])))}; {where}. Ratios are"
    head += " of runs that alternate\nin one process or two; what a line compares, and how, stands in its script.\n"
    return "\n".join([head, *ratios, "", "How cost grows:", "", *exponents, ""])


def main() -> int:
    """Run, keep, write."""
    known, requested = scripts(), sys.argv[1:]
    if unknown := set(requested) - known.keys():
        print(f"no such benchmarks: {sorted(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    path, failed = HERE / "results.json", []
    results: dict[str, list[dict[str, Any]]] = json.loads(path.read_text()) if path.is_file() else {}
    bar = tqdm(requested or known)
    for name in bar:
        bar.set_description(name)
        try:
            results[name] = run(name, known[name])
        except subprocess.CalledProcessError as error:
            failed.append(f"{name} (exit code {error.returncode})")
            continue
        results = {name: results[name] for name in known if name in results}
        write_text(path, json.dumps(results, indent=1) + "\n")
        write_text(HERE / "results.md", table(results))
    print(table(results) if results else "nothing was measured")
    print(f"failed: {', '.join(failed)}" if failed else f"written to {HERE / 'results.md'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
