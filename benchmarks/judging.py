"""How the cost of `judge` grows with the rows of the table: two measures, ten strengths, clusters of unequal sizes.

Each size is judged by the command in a process of its own, from the file to the HTML page. Processor seconds are
counted, so that other work on the machine matters less. A million rows may take 30 s and 2 GB.

    OMP_NUM_THREADS=2 python benchmarks/judging.py        # two minutes
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROWS = (125_000, 250_000, 500_000, 1_000_000)
STRENGTHS, MEASURES, REPEATS = 10, ("refused", "right"), 3
MOST_SECONDS, MOST_BYTES = 30, 2e9


def write(path: Path, rows: int) -> None:
    """Write a table; an item in twenty rows, some thirteen items a cluster."""
    draw = random.Random(0)
    items = rows // (STRENGTHS * len(MEASURES))
    with path.open("w") as file:
        file.write("item,setting,measure,value,cluster\n")
        for i in range(items):
            cluster = int(items / 13 * draw.random() ** 2)
            for k in range(STRENGTHS):
                for measure, chance in zip(MEASURES, (0.2 + 0.05 * k, 0.8), strict=True):
                    file.write(f"q{i},{k / 10},{measure},{int(draw.random() < chance)},c{cluster}\n")


def once(table: Path) -> tuple[float, int]:
    """Return processor seconds and peak bytes of judging a table."""
    command = [sys.executable, "-m", "lightning_steer", "judge", str(table), "--benefit", "refused>=0"]
    command += ["--harm", "right falls<=.05", "--html", str(table.with_suffix(".html"))]
    command += ["--range", "refused=0..1", "--range", "right=0..1"]  # without it numbers promise nothing
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"judge ended with status {status}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        tables = {rows: Path(folder, f"{rows}.csv") for rows in ROWS}
        for rows, path in tables.items():
            write(path, rows)
        turns = [[once(path) for path in tables.values()] for _ in range(REPEATS)]
    times = [statistics.median(seconds for seconds, _ in column) for column in zip(*turns, strict=True)]
    peaks = [max(size for _, size in column) for column in zip(*turns, strict=True)]
    size, cost = np.log2(ROWS), np.log2(times)
    exponent, steps = np.polyfit(size, cost, 1)[0], np.diff(cost) / np.diff(size)
    told = ", ".join(f"{n:,}: {t:.1f} s, {p / 1e9:.2f} GB" for n, t, p in zip(ROWS, times, peaks, strict=True))
    line = {"exponent": exponent, "low": steps.min(), "high": steps.max(), "n": REPEATS}
    rounded = {key: float(f"{value:.3g}") for key, value in line.items()}
    print(
        json.dumps({"benchmark": "scaling, rows of a table that is judged", **rounded, "told": told, "device": "cpu"})
    )
    if times[-1] > MOST_SECONDS or peaks[-1] > MOST_BYTES:
        raise SystemExit(f"a million rows took {times[-1]:.0f} s and {peaks[-1] / 1e9:.1f} GB")


if __name__ == "__main__":
    main()
