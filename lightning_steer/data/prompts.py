"""A prompts file for generating responses: every prompt under every system prompt, in parts saved one at a time."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch.utils.data import DataLoader

from lightning_steer import text_files
from lightning_steer.data.base import SteeringDataModule
from lightning_steer.data.batches import share
from lightning_steer.data.text import read
from lightning_steer.errors import UserError
from lightning_steer.numbers import ranged


class Prompt(NamedTuple):
    """One prompt to respond to."""

    id: str
    text: str


def read_prompts(path: str | Path) -> list[Prompt]:
    """Read prompts of ``.jsonl`` (``{"prompt": ..., "id": ...}``, the id is optional) or text (parted by blank lines).

    Raises FileNotFoundError, or ValueError naming the prompt.
    """
    path = Path(path)
    texts = [text for (text,) in read(path, ("prompt",))]
    ids = [str(number) for number in range(1, len(texts) + 1)]
    if path.suffix == ".jsonl":
        rows = text_files.json_lines(path)
        ids = [str(row.get("id", number)) for number, (_, row) in zip(ids, rows, strict=True)]
    if not texts:
        raise UserError(f"{path} holds no prompt")
    known_ids: set[str] = set()
    for id_, text in zip(ids, texts, strict=True):
        if not text.strip():
            raise UserError(f"{path}: prompt {id_} is empty")
        if id_ in known_ids:
            raise UserError(f"{path}: the id {id_} occurs twice")
        known_ids.add(id_)
    return list(map(Prompt, ids, texts))


class PromptsDataModule(SteeringDataModule):
    """Prompts to respond to, each under every system prompt.

    Args:
        file: the prompts: ``.jsonl`` (``{"prompt": ...}`` on each line), or plain text with blank lines between them.
        systems: system prompts; null for none, where a chat template may insert its own.
        batch_size: prompts continued together, at all strengths.
    """

    @ranged
    def __init__(self, file: str, systems: Sequence[str | None] = (None,), batch_size: int = 16) -> None:
        super().__init__()
        if not systems or len(set(systems)) < len(systems):
            raise UserError(f"systems are at least one and all different, not {list(systems)}")
        self.file, self.systems, self.batch_size = file, list(systems), batch_size

    def setup(self, stage: str | None = None) -> None:
        """Read the prompts, once."""
        if not hasattr(self, "prompts"):
            self.prompts = read_prompts(self.file)

    @property
    def parts(self) -> int:
        """Return the number of parts."""
        self.setup()
        return len(self.systems) * -(-len(self.prompts) // self.batch_size)

    def part(self, number: int) -> tuple[str | None, list[Prompt]]:
        """Return a part: a system prompt and a batch of prompts."""
        per_system = self.parts // len(self.systems)
        system, batch = divmod(number, per_system)
        return self.systems[system], self.prompts[batch * self.batch_size : (batch + 1) * self.batch_size]

    def predict_dataloader(self) -> DataLoader[int]:
        """Return the numbers of this process's parts, equally many on each; surplus numbers stand for no part."""
        rank_slice = share(self)
        step = rank_slice.step or 1
        numbers = range(rank_slice.start or 0, -(-self.parts // step) * step, step)
        return DataLoader(list(numbers), batch_size=None)  # type: ignore[arg-type]
