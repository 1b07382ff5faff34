"""The conformance check that a user runs on their own model before trusting a result: one line a law, and a verdict.

``python -m lightning_steer check --llm NAME``. From Python, :func:`check` also judges other people's hooks: subclass
:class:`Tool` and override what is theirs.
"""

import inspect
from collections.abc import Sequence
from typing import NamedTuple

import torch

from lightning_steer.check.laws import LAWS
from lightning_steer.check.tool import Bench, Tool
from lightning_steer.errors import UserError
from lightning_steer.lm.language_model import LLM

__all__ = ["LAWS", "Bench", "Tool", "Verdict", "check"]


class Verdict(NamedTuple):
    """Result of one law."""

    law: str
    passed: bool
    detail: str


@torch.no_grad()
def check(
    llm: LLM, tool: Tool | None = None, layer: int | None = None, labels: Sequence[str] = ("yes", "no")
) -> list[Verdict]:
    """Try every law on a loaded model.

    Args:
        llm: the model, loaded.
        tool: the hooks that are judged; None for this project's own.
        layer: the block that is steered; None for the middle one. The last block has no next layer and is refused.
        labels: words whose tokens must differ.
    """
    llm.load()
    count = llm.decoder.depth
    layer = (count - 1) // 2 if layer is None else layer
    if not 0 <= layer < count - 1:
        raise UserError(
            f"layer must lie between 0 and {count - 2}, not {layer}: an edit is followed into the next layer"
        )
    bench = Bench(llm, tool or Tool(), layer, labels)
    verdicts = []
    for law in LAWS:
        name = (inspect.getdoc(law) or law.__name__).rstrip(".")
        try:
            verdicts.append(Verdict(name, *law(bench)))
        except Exception as error:  # a tool that breaks has not passed; what it says is the detail
            verdicts.append(Verdict(name, False, f"{type(error).__name__}: {str(error).splitlines()[0][:150]}"))
    return verdicts
