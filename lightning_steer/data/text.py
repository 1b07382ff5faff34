"""A user's own text for training a language model: plain, or prompts with completions."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import DataLoader

from lightning_steer import text_files
from lightning_steer.data.base import SteeringDataModule
from lightning_steer.data.batches import Onwards, share
from lightning_steer.data.tokens import TextBatch, TextBatches, TextRow
from lightning_steer.errors import UserError
from lightning_steer.lm.continuations import prompt_tokens
from lightning_steer.numbers import ranged

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TextDataModule(SteeringDataModule):
    """A user's own text: ``.jsonl`` (an object per line) or ``.txt`` (documents separated by blank lines).

    With ``prompt`` and ``completion`` columns, the loss covers only the completion; else the whole ``text``.

    Args:
        train: file to learn from.
        tokenizer: local folder or hub name of the tokenizer, as a rule that of the model.
        val: file to validate on; null sets aside a share of the documents of ``train``.
        val_share: share of the documents to set aside.
        text: column of the text, in ``.jsonl`` files.
        prompt: column of the prompt; give ``completion`` too.
        completion: column of the completion, with its leading blank if it needs one.
        max_tokens: longer documents are cut into pieces; longer prompts lose their beginning.
        packed: join documents into rows of ``max_tokens``, for many short texts; not with prompts.
        tokens_per_step: tokens in a batch, about, shared out over all processes.
        seed: chooses the documents set aside, and shuffles.
    """

    @ranged
    def __init__(
        self,
        train: str,
        tokenizer: str,
        val: str | None = None,
        val_share: float = 0.05,
        text: str = "text",
        prompt: str | None = None,
        completion: str | None = None,
        max_tokens: int = 512,
        packed: bool = False,
        tokens_per_step: int = 4096,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if (prompt is None) != (completion is None):
            raise UserError(f"give prompt and completion, or neither: prompt={prompt!r}, completion={completion!r}")
        if packed and prompt is not None:
            raise UserError("packed rows hold several documents, so prompts cannot be told from completions in them")
        if min(max_tokens - 1, tokens_per_step) < 1 or not 0 < val_share < 1:
            raise UserError(
                "max_tokens must be at least 2, tokens_per_step positive and val_share in (0, 1), "
                f"not {max_tokens}, {tokens_per_step} and {val_share}"
            )
        self.files, self.tokenizer_name, self.val_share, self.seed = (train, val), tokenizer, val_share, seed
        self.columns = (text,) if prompt is None or completion is None else (prompt, completion)
        self.max_tokens, self.packed, self.tokens_per_step = max_tokens, packed, tokens_per_step

    def setup(self, stage: str | None = None) -> None:
        """Read and tokenize the documents, once."""
        if hasattr(self, "rows"):
            return
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(self.tokenizer_name, trust_remote_code=False)
        documents = read(Path(self.files[0]), self.columns)
        if self.files[1] is None:
            order = np.random.default_rng(self.seed).permutation(len(documents))
            val_count = max(1, round(len(documents) * self.val_share))
            if val_count >= len(documents):
                raise UserError(f"{self.files[0]} holds {len(documents)} document(s): too few to set any aside")
            parts = [[documents[i] for i in sorted(part)] for part in (order[val_count:], order[:val_count])]
        else:
            parts = [documents, read(Path(self.files[1]), self.columns)]
        self.rows = [self._tokenized(part) for part in parts]

    def _tokenized(self, documents: list[tuple[str, ...]]) -> list[TextRow]:
        document_rows = [rows_of(self.tokenizer, document, self.max_tokens) for document in documents]
        rows = [row for rows in document_rows for row in rows if row.start < len(row.ids)]
        if self.packed:
            stream = [token for row in rows for token in row.ids]
            pieces = [stream[i : i + self.max_tokens] for i in range(0, len(stream), self.max_tokens)]
            rows = [TextRow(piece) for piece in pieces if len(piece) > 1]
        if not rows:
            raise UserError("the text is empty: no document holds a token to predict")
        return rows

    def _loader(self, part: int, seed: int | None) -> DataLoader[TextBatch]:
        rows = self.rows[part]
        steps = max(1, min(len(rows), round(sum(len(row.ids) for row in rows) / self.tokens_per_step)))
        pad = self.tokenizer.pad_token_id
        pad = 0 if pad is None else int(pad)  # padding is never predicted and no real token attends to it

        def block(number: int) -> list[TextRow]:
            if seed is None:
                return rows
            order = np.random.default_rng(np.random.SeedSequence((seed, number, 1))).permutation(len(rows))
            return [rows[i] for i in order]

        batches = TextBatches(block, steps, pad, share(self), seed)
        return DataLoader(batches, batch_size=None, sampler=None if seed is None else Onwards(steps))

    def row_parts(self) -> list[Iterable[tuple[Any, Any]]]:
        """Return each row's tokens and first predicted one, for training and validation rows; none is held out."""
        return [*((([*row.ids, row.start], None) for row in part) for part in self.rows), ()]

    def train_dataloader(self) -> DataLoader[TextBatch]:
        return self._loader(0, self.seed)

    def val_dataloader(self) -> DataLoader[TextBatch]:
        return self._loader(1, None)

    test_dataloader = predict_dataloader = val_dataloader


def read(path: Path, columns: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Read a file's documents, one string per column; raises FileNotFoundError or ValueError."""
    if not path.is_file():
        raise FileNotFoundError(f"no text file at {path}")
    if path.suffix != ".jsonl":
        if len(columns) > 1:
            raise UserError(f"{path} is plain text and has no columns {' and '.join(columns)}: use a .jsonl file")
        return [(paragraph.strip(),) for paragraph in text_files.read(path).split("\n\n") if paragraph.strip()]
    documents = []
    for number, row in text_files.json_lines(path, columns):
        documents.append(tuple(row[column] for column in columns))
        if not all(isinstance(value, str) for value in documents[-1]):
            raise UserError(f"{path}, line {number}: {' and '.join(columns)} must be text, not {documents[-1]!r}")
    return documents


def read_texts(path: str | Path) -> list[str]:
    """Return the texts of a file, in a column ``text`` if it has columns; raises ValueError if there is none."""
    texts = [text for (text,) in read(Path(path), ("text",))]
    if not texts:
        raise UserError(f"{path} is empty: expected texts, or leave the file out")
    return texts


def rows_of(tokenizer: "PreTrainedTokenizerBase", document: tuple[str, ...], max_tokens: int) -> list[TextRow]:
    """Tokenize a document and its end mark: pieces of ``(text,)``, or one row of ``(prompt, completion)``.

    The completion begins at the first token that is not of the prompt alone: tokenizing the two parts separately would
    give other tokens.
    """
    *prompt, _ = document
    text = "".join(document)
    ids: list[int] = list(tokenizer(text)["input_ids"])
    end: Any = tokenizer.eos_token_id
    if end is not None and ids[-1:] != [end]:
        ids.append(end)
    if not prompt:
        return [TextRow(ids[i : i + max_tokens]) for i in range(0, len(ids), max_tokens)]
    start = prompt_tokens(tokenizer, prompt[0], text)
    dropped = max(0, len(ids) - max_tokens)
    return [TextRow(ids[dropped:], max(1, start - dropped))]
