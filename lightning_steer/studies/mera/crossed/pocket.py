"""The pocket models' tasks as parts of the crossed design: the last token's state after the last block."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from lightning_steer.data.mera.module import MERADataModule
from lightning_steer.data.mera.tasks import LabelledExample, PocketTask
from lightning_steer.lm.language_model import LLM
from lightning_steer.studies.mera import cells
from lightning_steer.studies.mera.crossed.cell import CellPart, CellParts
from lightning_steer.studies.mera.crossed.shifts import Answer
from lightning_steer.studies.mera.decisions import Decisions

SIZES = (3000, 500, 1000)
"""Training rows; rows for choosing penalties and for calibration, half each; test rows."""


@lru_cache(maxsize=2)
def model(folder: Path, chat: bool) -> LLM:
    """Return a pocket model, loaded once per process."""
    return cells.load(str(folder), chat)


def parts(llm: LLM, task: str, share: float | None, seed: int, sizes: tuple[int, int, int]) -> tuple[CellParts, Answer]:
    """Return the rows of one draw, and the function from steered states to answers."""
    data = MERADataModule(PocketTask(task, share, chat=llm.chat), *sizes, seed=seed)
    data.setup()
    data.check_tokens(llm)
    half = sizes[1] // 2
    tokens = list[torch.Tensor]()

    def part(examples: list[LabelledExample]) -> CellPart:
        decisions = Decisions(llm, cells.questions(data, examples))
        tokens.append(decisions.tokens)
        return CellPart(decisions.h[-1], torch.tensor([e.label for e in examples]), decisions.base)

    rows = CellParts(part(data.train), part(data.calibration[:half]), part(data.calibration[half:]), part(data.test))
    norm: Any = llm.decoder.base.norm
    return rows, lambda h: llm.decoder.logits(norm(h), tokens[0])
