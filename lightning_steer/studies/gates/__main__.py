"""Print what gates keep and spare in a pocket model: ``python -m lightning_steer.studies.gates``."""

import argparse
import sys

from lightning_steer.resources import resource_path
from lightning_steer.studies.gates.pocket import ETA, Result, run


def line(result: Result) -> str:
    """Return a row of the table."""
    numbers = (result.kept, result.spared, result.power, result.wrong)
    return f"| {result.goal} | {result.seed} | {result.effect:+.2f} | {' | '.join(map(str, numbers))} |"


def main(given: list[str] | None = None) -> int:
    """Run the seeds and print a table."""
    parser = argparse.ArgumentParser(prog="python -m lightning_steer.studies.gates", description=__doc__)
    parser.add_argument("--llm", default="checkpoints/pocket/base", help="the model")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="draws of the prompts")
    parser.add_argument("--goals", nargs="+", default=None, help="only these behaviours and tasks")
    options = parser.parse_args(given)
    print("| goal | seed | effect (nats) | kept by the gate | KL of others spared | steered of its own | of others |")
    print("|---|---|---|---|---|---|---|")
    for seed in options.seeds:
        for result in run(resource_path(options.llm), seed, names=options.goals):
            print(line(result), flush=True)
    print(f"\nPromised: of others at most {ETA:g}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
