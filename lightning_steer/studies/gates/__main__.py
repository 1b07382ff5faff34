"""Print what gates keep and spare in a pocket model: ``python -m lightning_steer.studies.gates``."""

import argparse
import sys

from lightning_steer.resources import resource_path
from lightning_steer.statistics.kinds import Share
from lightning_steer.studies.gates.additivity import Draw, draws, pocket, toy
from lightning_steer.studies.gates.pocket import ETA, GateResult, run


def line(result: GateResult) -> str:
    """Return a row of the table."""
    numbers = (result.effect_kept, result.spared, result.power, result.wrong)
    return f"| {result.goal} | {result.seed} | {result.effect:+.2f} | {' | '.join(map(str, numbers))} |"


def told_apart(world: str, drawn: list[Draw]) -> str:
    """Return in how many draws the planted pairs were told apart, with the true interaction."""
    lines = []
    for planted in ("additive", "interfering"):
        group = [draw for draw in drawn if draw.planted == planted]
        told = Share().estimate([float(draw.told) for draw in group])[0]
        true = [draw.true for draw in group]
        lines.append(
            f"{world}, {planted}: told in {told} of {len(group)} draws; true interaction {min(true):+.3f} to "
            f"{max(true):+.3f}, n {group[0].estimate.n}"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the seeds and print a table."""
    parser = argparse.ArgumentParser(prog="python -m lightning_steer.studies.gates", description=__doc__)
    parser.add_argument("--llm", default="checkpoints/pocket/base", help="the model")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="draws of the prompts of gates")
    parser.add_argument("--goals", nargs="+", default=None, help="only these behaviours and tasks")
    parser.add_argument("--draws", type=int, default=50, help="of planted pairs; 0 for none")
    options = parser.parse_args(argv)
    for name, world in (("toy", toy), ("pocket", lambda: pocket(resource_path(options.llm)))) if options.draws else ():
        print(told_apart(name, list(draws(world(), name, options.draws))), flush=True)
    print("| goal | seed | effect (nats) | kept by the gate | KL of others spared | steered of its own | of others |")
    print("|---|---|---|---|---|---|---|")
    for seed in options.seeds:
        for result in run(resource_path(options.llm), seed, names=options.goals):
            print(line(result), flush=True)
    print(f"\nPromised: of others at most {ETA:g}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
