"""``make mera``: the crossed design. Without ``--verdict`` it explores, on draws that no contrast rests on."""

import argparse
import json
import math
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from lightning_steer.report.files import write_json, write_text
from lightning_steer.statistics import estimate
from lightning_steer.studies.declaration import Declaration
from lightning_steer.studies.mera import settings
from lightning_steer.studies.mera.crossed import (
    cell,
    certificate,
    declaration,
    jobs,
    networks,
    planted,
    priors,
    summary,
)
from lightning_steer.studies.opening import open_once

PARTS = 4
"""Number of jobs among which the repeats of a positive control are split."""


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the options."""
    parser = argparse.ArgumentParser(prog="python -m lightning_steer.studies.mera.crossed", description=__doc__)
    add = parser.add_argument
    add("--verdict", action="store_true", help="open the draws that were kept for the declared contrasts")
    add("--prepare", action="store_true", help="train networks and run positive controls for it: opens no draws")
    add("--priors", action="store_true", help="open the second design: the share of the pull label varied")
    add("--log", type=Path, default=Path("docs/mera-opened.jsonl"), help="where openings are logged")
    add("--models-in", type=Path, default=Path("checkpoints/pocket"), help="where the folders base and tuned are")
    add("--out", type=Path, default=Path("logs/mera/crossed"), help="where cells, tables and figures go")
    add("--processes", type=int, default=2, help="cells that run at a time, on a core each")
    add("--kinds", nargs="+", help="only these kinds of world, when exploring")
    add("--small", action="store_true", help="few rows and short training, to see that everything runs")
    options = parser.parse_args(argv)
    if options.processes < 1:
        parser.error(f"--processes must be at least 1, not {options.processes}")
    if (options.verdict or options.prepare) and (options.small or options.kinds):
        parser.error("--verdict and --prepare are for the whole declared design: leave --small and --kinds out")
    if options.priors and (options.verdict or options.prepare or options.small or options.kinds):
        parser.error("--priors is a whole design of its own: leave --verdict, --prepare, --small and --kinds out")
    if options.verdict and options.prepare:
        parser.error("--prepare opens no draws: give it before --verdict, or leave it out")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the missing jobs, then write tables and figures."""
    options, start = arguments(argv), time.monotonic()
    if options.priors:
        return vary_priors(options, sys.argv[1:] if argv is None else argv)
    for model in settings.MODELS:
        if not (options.models_in / model / "config.json").is_file():
            print(
                f"lightning_steer: there is no model in {options.models_in / model}: give --models-in", file=sys.stderr
            )
            return 2
    declared = options.verdict or options.prepare
    out = options.out / ("verdict" if declared else "small" if options.small else "exploration")
    command = sys.argv[1:] if argv is None else argv
    if options.verdict and not opened(options.log, declaration.DECLARATION, "verdict", command):
        return 2
    network_folder, folder = options.out / "networks", out / "cells"
    requested = [key for key in jobs.keys(declared) if not options.kinds or key.kind in options.kinds]
    paths = {key: folder / f"{key.file}.json" for key in requested}
    controls = {(kind, n): folder / f"planted {kind} {n}.json" for kind in planted.KINDS for n in range(PARTS)}
    power_paths = {name: folder / f"certificate {name}.json" for name in certificate.SETS}
    repeats_per_job = declaration.REPEATS // PARTS if declared else 1
    todo: dict[Path, tuple[Any, ...]] = {}
    for (kind, n), path in controls.items():
        todo[path] = (jobs.repeats, kind, range(100 + n * repeats_per_job, 100 + (n + 1) * repeats_per_job))
    for name, path in power_paths.items():
        todo[path] = (certificate.by_effect, name, 400 if options.small else certificate.REPEATS)
    first = min(key.draw for key in requested)
    if options.prepare:
        trained = {(key.kind, key.network) for key in requested if not key.task}
        todo |= {
            network_folder / f"gap {kind} {seed}.json": (jobs.gap, network_folder, kind, int(seed))
            for kind, seed in sorted(trained)
        }
    else:
        todo |= {path: (jobs.run_cell, key, options.models_in, network_folder, key.draw == first, options.small)
                 for key, path in paths.items()}  # fmt: skip
    run(todo, {"design": cell.DESIGN, "statistics": estimate.VERSION, "small": options.small}, options.processes)
    if options.prepare:
        print(f"{time.monotonic() - start:.0f} s; networks and positive controls in {options.out}")
        return 0
    repeats = {kind: [entry for n in range(PARTS) for entry in _read(controls[kind, n])] for kind in planted.KINDS}
    effects = [entry for path in power_paths.values() for entry in _read(path)]
    print(
        summary.write(
            out, {key: _read(path) for key, path in paths.items()}, repeats, effects, networks.gaps(network_folder)
        )
    )
    print(f"{time.monotonic() - start:.0f} s; tables and figures in {out}")
    return 0


def vary_priors(options: argparse.Namespace, argv: Sequence[str]) -> int:
    """Open the second design, run its missing jobs, and write its tables."""
    if not opened(options.log, priors.DECLARATION, "priors", argv):
        return 2
    network_folder, out = options.out / "networks", options.out / "priors"
    paths = {key: out / "cells" / key.file for key in priors.design()}
    trained = {(key.kind, key.network) for key in paths}
    stamp = {"design": cell.DESIGN, "statistics": estimate.VERSION}
    gaps = {
        network_folder / f"gap {kind} {seed}.json": (jobs.gap, network_folder, kind, seed)
        for kind, seed in sorted(trained)
    }
    run(gaps, stamp, options.processes)
    run({path: (priors.run_cell, key, network_folder) for key, path in paths.items()}, stamp, options.processes)
    text = priors.text({key: _read(path) for key, path in paths.items()})
    write_text(out / "summary.md", text)
    print(f"{text}\nMean KL from the planted answers at most {max(map(_read, gaps)):.4f} nats. Tables in {out}")
    return 0


def opened(log: Path, declared: Declaration, draws: str, argv: Sequence[str]) -> bool:
    """Log that draws are opened; return False with a message if another declaration opened them."""
    command = ["python", "-m", "lightning_steer.studies.mera.crossed", *argv, f"commit {commit()}"]
    try:
        open_once(log, declared, draws, command)
    except ValueError as error:
        print(f"lightning_steer: {error}", file=sys.stderr)
        return False
    return True


def run(todo: Mapping[Path, tuple[Any, ...]], stamp: dict[str, Any], processes: int) -> None:
    """Run the jobs whose files are missing or of another design, and write their results."""
    missing = {path: job for path, job in todo.items() if not _done(path, stamp)}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context) as pool, tqdm(total=len(missing), desc="crossed design") as bar:
        running = {pool.submit(*job): path for path, job in missing.items()}
        for job in as_completed(running):
            write_json(running[job], {"settings": stamp, "value": job.result()})
            bar.update()


def commit() -> str:
    """Return the commit of the code, or "unknown"."""
    process = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)  # noqa: S607
    return process.stdout.strip() or "unknown"


def _done(path: Path, stamp: dict[str, Any]) -> bool:
    return path.is_file() and json.loads(path.read_text()).get("settings") == stamp


def _read(path: Path) -> Any:
    return _numbers(json.loads(path.read_text())["value"])


def _numbers(value: Any) -> Any:
    """Return stored values with NaN where JSON has null."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return math.nan if value is None else value


if __name__ == "__main__":
    sys.exit(main())
