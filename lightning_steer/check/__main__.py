"""``python -m lightning_steer check --llm NAME``: one line a law, a verdict, exit code 1 if any law does not hold."""

import sys

import torch

from lightning_steer.arguments import Parser
from lightning_steer.check import check
from lightning_steer.errors import UserError
from lightning_steer.escapes import say
from lightning_steer.lm.language_model import LLM

DESCRIPTION = """\
Test whether steering does to your model what it should. A law is a property that must hold: hooks steer exactly the
layer and the tokens that were named, padding and caches change nothing, labels differ in their tokens. Each law that is
tested gives one line of output. Exit code 1 if a law does not hold."""


def usable(name: str) -> torch.device:
    """The device of this name; raises ValueError before a model is loaded for one that is not there."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name!r} cannot be used here ({reason}): leave it out for the CPU") from None
    return device


def main(arguments: list[str] | None = None) -> int:
    """Check the model that is named, print one line a law; exit code 1 if any fails."""
    parser = Parser.of_command("check", "--llm NAME [options]", DESCRIPTION)
    parser.add_model()
    parser.add_argument(
        "--layer",
        type=int,
        metavar="N",
        help="the decoder block (layer) to steer, counted from 0 (default: the middle one)",
    )
    parser.add_loading()
    parser.add_argument(
        "--device", default="cpu", metavar="NAME", help="where the model runs, for example cuda (default: cpu)"
    )
    parser.add_argument(
        "--labels",
        nargs="+",
        default=["yes", "no"],
        metavar="WORD",
        help="answer labels of your task, whose tokens must differ; the law also fails for a label that the tokenizer "
        "does not know (default: yes no)",
    )
    args = parser.parse_args(arguments)
    labels = [label.strip() for label in args.labels]
    if not all(labels) or len(set(labels)) < len(labels):
        raise UserError(f"--labels must be words, each once, not {args.labels}")
    device = usable(args.device)
    llm = LLM(args.llm, 0, dtype=args.dtype, revision=args.revision)
    llm.load()
    llm.model.to(device)
    verdicts = check(llm, None, args.layer, args.labels)
    for verdict in verdicts:
        say(f"{'ok  ' if verdict.passed else 'FAIL'}  {verdict.law} ({verdict.detail})")
    failed = sum(not verdict.passed for verdict in verdicts)
    say(f"{args.llm}: " + (f"{failed} of {len(verdicts)} laws do not hold" if failed else "all laws hold"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
