"""A prompts file for generating responses: every prompt under every system prompt, in parts that are written whole."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import lightning as L
from torch.utils.data import DataLoader

from lightning_steer import text_files
from lightning_steer.data.batches import share
from lightning_steer.data.text import read
from lightning_steer.numbers import ranged


class Prompt(NamedTuple):
    """One prompt to respond to."""

    id: str
    text: str


def read_prompts(path: str | Path) -> list[Prompt]:
    """Prompts of ``.jsonl`` (``{"prompt": ..., "id": ...}``, ids may lack) or text (parted by blank lines).

    Raises FileNotFoundError, or ValueError naming the prompt.
    """
    path = Path(path)
    texts = [text for (text,) in read(path, ("prompt",))]
    ids = [str(number) for number in range(1, len(texts) + 1)]
    if path.suffix == ".jsonl":
        rows = text_files.json_lines(path)
        ids = [str(row.get("id", number)) for number, (_, row) in zip(ids, rows, strict=True)]
    if not texts:
        raise ValueError(f"{path} holds no prompt")
    seen: set[str] = set()
    for id_, text in zip(ids, texts, strict=True):
        if not text.strip():
            raise ValueError(f"{path}: prompt {id_} is empty")
        if id_ in seen:
            raise ValueError(f"{path}: the id {id_} occurs twice")
        seen.add(id_)
    return list(map(Prompt, ids, texts))


class PromptsDataModule(L.LightningDataModule):
    """Prompts to respond to, each under every system prompt.

    Args:
        file: ``.jsonl`` (an object with ``prompt`` a line) or plain text (parted by blank lines).
        systems: system prompts; null stands for none, which a chat template may fill in itself.
        batch_size: prompts that are responded to together, at all strengths.
    """

    @ranged
    def __init__(self, file: str, systems: Sequence[str | None] = (None,), batch_size: int = 16) -> None:
        super().__init__()
        if not systems or len(set(systems)) < len(systems):
            raise ValueError(f"systems are at least one and all different, not {list(systems)}")
        self.file, self.systems, self.batch_size = file, list(systems), batch_size

    def setup(self, stage: str | None = None) -> None:
        """Read, once."""
        if not hasattr(self, "prompts"):
            self.prompts = read_prompts(self.file)

    @property
    def parts(self) -> int:
        """How many parts there are."""
        self.setup()
        return len(self.systems) * -(-len(self.prompts) // self.batch_size)

    def part(self, number: int) -> tuple[str | None, list[Prompt]]:
        """A system prompt, and some prompts that go with it."""
        each = self.parts // len(self.systems)
        system, place = divmod(number, each)
        return self.systems[system], self.prompts[place * self.batch_size : (place + 1) * self.batch_size]

    def predict_dataloader(self) -> DataLoader[int]:
        """Numbers of this process's parts; as many on each, the surplus being parts that there are not."""
        own = share(self)
        step = own.step or 1
        numbers = range(own.start or 0, -(-self.parts // step) * step, step)
        return DataLoader(list(numbers), batch_size=None)  # type: ignore[arg-type]
