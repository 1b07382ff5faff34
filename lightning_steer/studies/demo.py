"""``make demo``: two toy networks and a language model, steered and evaluated with the commands a user would type."""

import contextlib
import io
import logging
import sys
import time
from pathlib import Path
from typing import Any

from lightning_steer.cli import CLI
from lightning_steer.report import figures, tables
from lightning_steer.report.files import write_figure
from lightning_steer.workflows import command

NETWORKS = {"projection": ("toy", "steer_toy"), "none": ("toy_no_bypass", "steer_toy_no_bypass")}
METHODS = ("random_direction", "mean_difference", "learned_vector", "loreft")
TITLES = {
    "projection": "The residual goes round the steered layer:\nthe mean difference does not move the target",
    "none": "Everything passes through the layer:\nthe same vector moves it",
}
QUIET = ["--trainer.enable_progress_bar", "false"]
BEFORE = """\
A toy network reads 60 attributes of a sample, each with 8 possible values. Steering shall make it read the value 0 for
attribute 0, and leave the other 59 alone: something is added to the output of one hidden layer of a network that is
otherwise frozen. Two networks: in the first a residual carries the input past that layer (as in the student report
whose reproduction failed), in the second everything passes through it."""
COLUMNS = ("target_accuracy", "target_unchanged", "off_target_accuracy", "exact_match", "drift_kl")
LEGEND = """\
target: attribute 0 reads 0.  kept: it still reads its old value.  others: the other 59 read right.  exact: all right.
drift_kl: how far the output for the others moved, in nats.  Each value with its 95 % interval over 2,000 held-out rows;
for random directions, as long as MeanDifference's shift, the median and the range of 20 draws, and p: the rank of
MeanDifference among them, near 0 where hardly any does as well.  oracle patch: the layer's output is replaced by that
of a sample that has the value 0 and is otherwise the same."""
AFTER = """\
Why: with the residual the network hardly uses the layer. Even the right activation there (oracle patch) changes
nothing, so a vector that moves activations to where they should be changes nothing either. Only what is trained
through the output finds a push that works, into a region where no sample ever is. Without the residual the same vector
steers."""


LANGUAGE = ["steer", "--llm", "checkpoints/pocket/base", "--pairs", "configs/pairs.jsonl", "--max_new_tokens", "8"]
PAIRS = """\
A small language model that ships, and twenty prompts with an honest and a dishonest continuation each. Every layer and
strength is tried; what chooses them does not judge them."""


def run(command: str, experiment: str, method: str, *more: str) -> dict[str, Any]:
    """Run one command of the command line in this process, without its own output; returns its report."""
    configs = ["--config", f"configs/{experiment}.yaml", "--config", f"configs/methods/{method}.yaml"]
    with contextlib.redirect_stdout(io.StringIO()):
        return getattr(CLI([command, *configs, *more]).model, "report", {})


def main() -> int:
    """Train both networks, steer each with every method, print a table for each."""
    start = time.monotonic()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    print(BEFORE)
    folders: list[Path] = []
    vectors: dict[str, Any] = {}
    for network, (train, steer) in NETWORKS.items():
        print(f"\n== residual: {network}\n$ python -m lightning_steer fit --config configs/{train}.yaml", flush=True)
        CLI(["fit", "--config", f"configs/{train}.yaml"])
        print(
            f"$ python -m lightning_steer fit|test --config configs/{steer}.yaml --config configs/methods/METHOD.yaml"
        )
        rows: dict[str, Any] = {}
        vector_report: dict[str, Any] = {}
        for method in METHODS:
            print(f"  {method} ...", end="", flush=True)
            method_start, options = time.monotonic(), ["--experiment", f"demo/{network}", *QUIET]
            run("fit", steer, method, *options)
            report = run("test", steer, method, *options)
            print(f" {time.monotonic() - method_start:.1f} s", flush=True)
            folders.append(Path("logs/demo") / network / method)
            rows[report["method"]] = report["metrics"]
            if method == "mean_difference":
                vector_report = report
        vectors[TITLES[network]] = vector_report
        baselines = vector_report["baselines"]
        rows = {
            "baseline": baselines["baseline"],
            "20 random directions, as long": baselines["random_control"],
            **rows,
            "oracle patch": baselines["oracle_patch"],
        }
        score = tables.cell(vector_report["metrics"]["bypass"])
        print(f"\n{tables.text(rows, COLUMNS)}\n\nby-pass score {score}: the share of the evidence that goes round")
        print("the layer (0 none, 1 all)." + "".join(f"\nWarning: {warning}" for warning in vector_report["warnings"]))
    picture = figures.side_by_side(vectors)
    write_figure(picture, Path("logs/demo"), "mean_difference")
    print(f"\n{LEGEND}\n\n{AFTER}\n\n== a language model\n{PAIRS}\n$ python -m lightning_steer {' '.join(LANGUAGE)}")
    command.main([*LANGUAGE[1:], "--out", "logs/demo/language", "--overwrite", "true"])
    print(f"\nReports and figures ({time.monotonic() - start:.0f} s in all):")
    for folder in folders:
        print(f"  {folder}/report.md  {' '.join(sorted(path.name for path in folder.glob('*.png')))}")
    print("  logs/demo/mean_difference.png: the vector on both networks, at every strength")
    print("See them all: tensorboard --logdir logs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
