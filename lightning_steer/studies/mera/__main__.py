"""``make mera``: run the missing cells of every method on the pocket models' tasks, then write reports and a table."""

import argparse
import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from lightning_steer.report.files import write_json
from lightning_steer.statistics import estimate
from lightning_steer.studies.mera import cells, settings, summary


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the options of the study."""
    parser = argparse.ArgumentParser(prog="python -m lightning_steer.studies.mera", description=__doc__)
    add = parser.add_argument
    add("--models-in", type=Path, default=Path("checkpoints/pocket"), help="where the folders base and tuned are")
    add("--models", nargs="+", default=list(settings.MODELS), choices=settings.MODELS, help="which of them")
    add("--tasks", nargs="+", default=list(settings.TASKS), choices=settings.TASKS, help="which tasks")
    add("--mixtures", nargs="+", default=list(settings.MIXTURES), choices=settings.MIXTURES, help="which mixtures")
    add("--seeds", type=int, default=5, help="draws of prompts and splits")
    add("--out", type=Path, default=Path("logs/mera"), help="where numbers, reports and figures go")
    add("--processes", type=int, default=2, help="parts that run at a time, on a core each")
    add("--quick", action="store_true", help="two draws of three tasks in the base model, fewer prompts")
    options = parser.parse_args(argv)
    if min(options.seeds, options.processes) < 1:
        parser.error(f"--seeds and --processes must be at least 1, not {options.seeds} and {options.processes}")
    if options.quick:
        options.models, options.seeds = ["base"], 2
        options.tasks = ["sms_spam", "sentiment_analysis", "mmlu_high_school"]
        options.out = options.out / "quick" if options.out == Path("logs/mera") else options.out
    return options


def main(argv: list[str] | None = None) -> int:
    """Run the missing parts, write the reports, print the summary."""
    options, start = arguments(argv), time.monotonic()
    sizes = (1500, 250, 500) if options.quick else (settings.TRAIN, settings.CALIBRATION, settings.TEST)
    for model in options.models:
        if not (options.models_in / model / "config.json").is_file():
            print(
                f"lightning_steer: there is no model in {options.models_in / model}: give --models-in", file=sys.stderr
            )
            return 2
    first = settings.FIRST_QUICK_DRAW if options.quick else settings.FIRST_DRAW
    todo = [(m, x, s) for s in range(first, first + options.seeds) for x in options.mixtures for m in options.models]
    paths = {key: options.out / "parts" / f"{key[0]}-{key[1].split()[0]}-{key[2]}.json" for key in todo}
    expected = {key: part_settings(options.models_in / key[0], options.tasks, sizes) for key in todo}
    missing = [key for key in todo if not _done(paths[key], expected[key])]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, context) as pool, tqdm(total=len(missing), desc="MERA study") as bar:
        jobs = {pool.submit(cells.part, options.models_in, *key, options.tasks, sizes): key for key in missing}
        for job in as_completed(jobs):
            key = jobs[job]
            write_json(paths[key], {"settings": expected[key], "results": job.result()})
            bar.set_postfix_str(f"{key[0]}, {key[1]}, draw {key[2]}")
            bar.update()
    results = {key: json.loads(path.read_text())["results"] for key, path in paths.items()}
    print(summary.write(options.out, results))
    print(f"{time.monotonic() - start:.0f} s; numbers, reports and figures in {options.out}")
    return 0


def part_settings(model: Path, tasks: list[str], sizes: tuple[int, int, int]) -> dict[str, Any]:
    """Return the settings that a stored part depends on; if any of them changes, the part runs again."""
    return {"tasks": tasks, "sizes": list(sizes), "weights": _identity(model), "statistics": estimate.VERSION}


def _identity(folder: Path) -> str:
    from lightning_steer.cache.files import digest

    return digest(next(folder.glob("*.safetensors")))


def _done(path: Path, expected: dict[str, Any]) -> bool:
    return path.is_file() and json.loads(path.read_text()).get("settings") == expected


if __name__ == "__main__":
    sys.exit(main())
