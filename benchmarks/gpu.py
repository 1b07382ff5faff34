"""Laws and measures on a GPU: one command of at most 8 minutes that writes one table with the GPU's name.

Laws in float32 and bfloat16: those of ``check`` (hooks, positions, caches, scores, generation), sweeps, search, MERA
and batched lasso against the CPU. Then cache throughput, sweep, hooks, tokens a second, peak memory against ``plan``,
lasso paths of 36 layers, search over all layers of a 1B and a 7B Llama with random weights, and torch.compile with
CUDA graphs. Every part has a limit; one that passes it, or does not fit into memory, says so. The table is written anew
after every line.

    python benchmarks/gpu.py                    # writes benchmarks/gpu.md and gpu.json
    python benchmarks/gpu.py --device cpu       # the same code on tiny models, into logs/benchmarks
"""

import argparse
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import side_by_side
import torch
from gpu_parts import laws, measures
from gpu_parts.models import FULL, SMALL, Form, Row, free

from lightning_steer.report.files import write_json, write_text

HERE = Path(__file__).parent
PARTS: dict[str, tuple[Callable[[Form], Iterator[Row]], int]] = {
    "laws": (laws.laws, 90),
    "probes": (measures.probes, 50),
    "cache": (measures.cache, 40),
    "sweep": (measures.sweep, 40),
    "generation": (measures.generation, 60),
    "memory": (measures.memory, 20),
    "search": (measures.search, 120),
    "compile": (measures.compiled, 60),
}
"""Each part and its limit, in seconds."""


class Late(Exception):
    """A part has passed its limit."""


def limited(rows: Iterator[Row], limit: float, part: str) -> Iterator[Row]:
    """Yield a part's rows until its limit, in seconds; a part that fails says why in a row of its own."""

    def stop(*_: Any) -> None:
        raise Late

    end, previous = time.monotonic() + limit, signal.signal(signal.SIGALRM, stop)
    try:
        while True:
            signal.setitimer(signal.ITIMER_REAL, max(end - time.monotonic(), 0.001))
            row = next(rows, None)
            signal.setitimer(signal.ITIMER_REAL, 0)  # writing a row is not interrupted
            if row is None:
                return
            yield row
    except Late:
        yield Row(part, "the rest", f"stopped after {limit:.0f} s")
    except torch.OutOfMemoryError:
        yield Row(part, "the rest", "does not fit into the memory that is free")
    except Exception as error:  # the other parts are worth having
        signal.setitimer(signal.ITIMER_REAL, 0)
        message = (str(error).splitlines() or [""])[0][:200]
        yield Row(part, "the rest", f"{type(error).__name__}: {message}", holds=False)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def device_name() -> str:
    """The GPU's name, or the processor's."""
    return torch.cuda.get_device_name() if side_by_side.DEVICE == "cuda" else f"CPU ({platform.machine()})"


def table(rows: list[Row]) -> str:
    """Write the table as Markdown."""
    tiny = "" if side_by_side.DEVICE == "cuda" else " Tiny models: only the laws mean something."
    head = f"# {device_name()}\n\nBy `benchmarks/gpu.py`, {date.today()}; torch {torch.__version__}.{tiny}\n"
    lines = ["| part | what | value | n | holds |", "|---|---|---|---|---|"]
    holds = {True: "yes", False: "NO", None: ""}
    lines += [f"| {row.part} | {row.what} | {row.value} | {row.n} | {holds[row.holds]} |" for row in rows]
    return "\n".join([head, *lines, ""])


def main(arguments: list[str] | None = None) -> int:
    """Run all parts, or some; exit code 1 if a law does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default=side_by_side.DEVICE)
    parser.add_argument("--folder", type=Path, help="where the table goes")
    parser.add_argument("--seconds", type=float, default=470, help="of all parts together (default: %(default)s)")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - PARTS.keys():
        parser.error(f"there is no part {', '.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    side_by_side.DEVICE = options.device
    form = FULL if options.device == "cuda" else SMALL
    folder = options.folder or (HERE if options.device == "cuda" else Path("logs/benchmarks"))
    end, rows = time.monotonic() + options.seconds, list[Row]()
    for part in options.parts or PARTS:
        function, limit = PARTS[part]
        for row in limited(function(form), min(limit, end - time.monotonic()), part):
            rows.append(row)
            print(f"{row.part}: {row.what}: {row.value}", flush=True)
            write_json(folder / "gpu.json", {"device": device_name(), "rows": [row._asdict() for row in rows]})
            write_text(folder / "gpu.md", table(rows))
        free()
    print(f"written to {folder / 'gpu.md'}")
    return 1 if any(row.holds is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
