"""Say what a run will cost, before anything is downloaded or loaded.

It reads the model's config.json, not its weights. It shows parameters, memory by precision, tokens and operations of
each phase, and the files that are written. It shows the time too, with --calibrate or --throughput. It says whether the
run fits into this machine, and what to change if it does not. Plan `steer`, or an experiment:

  plan --llm checkpoints/pocket/base --pairs configs/pairs.jsonl
  plan --config configs/steer_mera.yaml --config configs/methods/mera.yaml
"""

from pathlib import Path
from typing import Any

import torch

from lightning_steer import numbers
from lightning_steer.arguments import Parser
from lightning_steer.check.__main__ import usable
from lightning_steer.errors import UserError
from lightning_steer.workflows.command import METHODS

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def check(options: Any) -> None:
    """Refuse options that do not go together; raises ValueError."""
    if not options.config and options.llm is None:
        raise UserError("nothing to plan: give --llm with --pairs, as for steer, or --config with an experiment")
    if options.config and options.pairs is not None:
        raise UserError("--pairs is of steer, and --config of an experiment: give one of them")
    if options.dtype not in ("auto", *DTYPES):
        raise UserError(f"dtype is auto, float32, bfloat16 or float16, not {options.dtype!r}")
    if options.calibrate and options.throughput is not None:
        raise UserError("--calibrate measures the throughput, and --throughput gives it: leave one out")
    set_options = {name: getattr(options, name) for name in ("tokens_per_batch", "strengths")}
    numbers.check({name: value for name, value in set_options.items() if value is not None}, "--")
    if options.throughput is not None:
        numbers.finite("--throughput", options.throughput)
        if options.throughput <= 0:
            raise UserError(f"--throughput must be above 0, in TFLOP a second, not {options.throughput:g}")
    usable(options.device)


def overrides_of(options: Any) -> list[tuple[str, str]]:
    """Return the settings of the model that win over a configuration's, by name."""
    overrides = {"llm": options.llm, "revision": options.revision, "dtype": options.dtype}
    return [(name, value) for name, value in overrides.items() if value not in (None, "auto")]


def parser() -> Parser:
    """Return the parser of this command."""
    made = Parser.of_command("plan", "(--llm NAME --pairs FILE | --config FILE) [options]", __doc__)
    made.add_argument(
        "--config",
        action="append",
        metavar="FILE",
        help="plan an experiment with this configuration; give the option once for the experiment, then once for the "
        "method",
    )
    made.add_argument(
        "--llm",
        metavar="NAME",
        help="the model: its name on the Hugging Face hub, or a local folder in the same form; its config.json is "
        "enough (default: the configuration's)",
    )
    made.add_argument("--pairs", type=Path, nargs="+", metavar="FILE", help="plan `steer` with these contrast pairs")
    made.add_argument("--layers", type=int, nargs="+", metavar="N", help="as for steer: layers to try (default: all)")
    made.add_argument(
        "--method",
        action="append",
        choices=METHODS,
        metavar="NAME",
        help="as for steer (default: MeanDifference); training, as of LearnedVector, is not counted",
    )
    made.add_argument(
        "--strengths", type=float, nargs="+", metavar="X", help="as for steer (default: the method's own)"
    )
    made.add_argument("--full_grid", action="store_true", help="as for steer: every layer at all strengths")
    made.add_argument(
        "--reference_texts", type=Path, metavar="FILE", help="as for steer (default: texts that come with the package)"
    )
    made.add_argument("--out", type=Path, metavar="FOLDER", help="as for steer: the folder that it will write")
    made.add_argument("--chat", action="store_true", help="as for steer: prompts in the model's chat template")
    made.add_loading()
    made.add_argument(
        "--tokens_per_batch",
        type=int,
        metavar="N",
        help="tokens in a forward pass, over all copies of a row (default: the configuration's, or 8192)",
    )
    made.add_argument(
        "--calibrate",
        action="store_true",
        help="measure the speed of two blocks with random weights for 20 seconds, and show the time of each phase",
    )
    made.add_argument(
        "--throughput",
        type=float,
        metavar="X",
        help="show the time of each phase at this speed, in TFLOP (10^12 floating-point operations) a second",
    )
    made.add_argument(
        "--device", default="cpu", metavar="NAME", help="where --calibrate runs, for example cuda (default: cpu)"
    )
    return made
