"""The pocket language and its data module: an endless stream of documents with exact log-probabilities."""

from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import DataLoader

from lightning_steer import numbers
from lightning_steer.data.base import SteeringDataModule
from lightning_steer.data.batches import Onwards, share
from lightning_steer.data.pocket import behaviours as pocket_behaviours
from lightning_steer.data.pocket import neutral as pocket_neutral
from lightning_steer.data.pocket import stereotypes as pocket_stereotypes
from lightning_steer.data.pocket import tasks as pocket_tasks
from lightning_steer.data.pocket.text import (
    BOS,
    CHAT_TEMPLATE,
    EOS,
    PAD,
    SYSTEM,
    THANKS,
    Document,
    source,
    tokenizer,
    words_of,
)
from lightning_steer.data.tokens import TextBatch, TextBatches, TextRow
from lightning_steer.errors import UserError
from lightning_steer.numbers import ranged

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CORPORA: dict[str, ModuleType] = {
    "stereotypes": pocket_stereotypes,
    "tasks": pocket_tasks,
    "behaviours": pocket_behaviours,
    "neutral": pocket_neutral,
}
SHARE = (0.40, 0.42, 0.12, 0.06)
"""Share of each sub-corpus among plain documents; below, among chats."""
SHARE_CHAT = (0.36, 0.36, 0.22, 0.06)
TRAIN, SELECT, TEST = range(3)
ROWS = 1
"""Version of the generated documents: raise it whenever the same settings give other documents."""
STEPS_PER_BLOCK = 128
"""Training documents are drawn and sorted by length in blocks of this many steps."""


def vocabulary() -> list[str]:
    """Return every word and mark of the language, in a fixed order."""
    s, t, b, n = (CORPORA[name] for name in CORPORA)
    return words_of(
        *(". , ? :", SYSTEM, THANKS, "The the They and", n.ASK),
        *(*s.OPENERS, *s.FIRSTS, *s.COPULAS, *s.QUESTIONS, *s.TARGETS, *(w for words in s.WORDS for w in words)),
        *("Marked by", *t.CAREFUL, *t.CARELESS, "Answer"),
        *(f"{task.noun} {task.question} {' '.join(task.labels)}" for task in t.TASKS),
        *(words for task in t.TASKS for places in task.lexicon for words in places),
        *(form.format("") for form in (*b.TEMPLATES, *b.QUESTIONS, b.REPLY)),
        *(words for lists in (b.TOPICS, b.MATCHING, b.NON_MATCHING) for group in lists for words in group),
        *("In", *n.TIMES, *n.LOOKS, *n.ANIMALS, *n.DEEDS, *n.SPOTS),
    )


def documents(seeds: tuple[int, ...], n: int, chat_share: float = 0.0) -> list[Document]:
    """Draw n documents of the language, about ``chat_share`` of them chats, the others plain text."""
    random = source(*seeds)
    shares = np.concatenate([(1 - chat_share) * np.array(SHARE), chat_share * np.array(SHARE_CHAT)])
    counts = np.bincount(random.choice(8, n, p=shares / shares.sum()), minlength=8)
    grouped: list[Document] = []
    draws = [corpus.draw for corpus in CORPORA.values()] + [corpus.draw_chat for corpus in CORPORA.values()]
    for draw, count, weight in zip(draws, counts.tolist(), shares, strict=True):
        grouped += [Document(text, logp + float(np.log(weight))) for text, logp in draw(random, count)] if count else []
    return [grouped[i] for i in random.permutation(n)]


class PocketDataModule(SteeringDataModule):
    """The pocket language for training: fresh documents in every step, a fixed held-out set.

    Args:
        chat_share: share of the documents in chat form; the others are plain. 0 trains a base model, 0.7 tunes one.
        tokens_per_step: tokens in a batch, about, shared out over all processes.
        steps_per_epoch: batches in an epoch.
        val_documents: held-out documents for validation, and as many others for the test.
        seed: draws the documents.
    """

    @ranged
    def __init__(
        self,
        chat_share: float = 0.0,
        tokens_per_step: int = 1536,
        steps_per_epoch: int = 1000,
        val_documents: int = 4000,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= chat_share <= 1:
            raise UserError(f"chat_share is a share of the documents and lies in [0, 1], not {chat_share}")
        if min(tokens_per_step - 63, steps_per_epoch, val_documents) < 1:
            raise UserError(
                "tokens_per_step must be at least 64 (the longest document), steps_per_epoch and val_documents "
                f"positive, not {tokens_per_step}, {steps_per_epoch} and {val_documents}"
            )
        numbers.fits(f"val_documents {val_documents}", val_documents, 1000)
        numbers.fits(
            f"{STEPS_PER_BLOCK} steps of tokens_per_step {tokens_per_step}", STEPS_PER_BLOCK * tokens_per_step, 64
        )
        self.chat_share, self.tokens_per_step, self.steps_per_epoch = chat_share, tokens_per_step, steps_per_epoch
        self.val_documents, self.seed = val_documents, seed

    @property
    def tokenizer(self) -> "PreTrainedTokenizerFast":
        """Return the word-level tokenizer, with a chat template if there are chats."""
        if not hasattr(self, "_tokenizer"):
            self._tokenizer = tokenizer(vocabulary(), CHAT_TEMPLATE if self.chat_share else None)
        return self._tokenizer

    def _rows(self, sampled: list[Document]) -> list[TextRow]:
        bos, eos = (self.tokenizer.get_vocab()[mark] for mark in (BOS, EOS))
        texts = [document.text for document in sampled]
        encoded = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        begun_ids = ([*([] if ids[0] == bos else [bos]), *ids, eos] for ids in encoded)  # chats already begin with bos
        return [TextRow(ids, 1, document.logp) for ids, document in zip(begun_ids, sampled, strict=True)]

    def _block(self, number: int) -> list[TextRow]:
        """Return just enough rows for a block of training steps."""
        target_tokens, rows, tokens = STEPS_PER_BLOCK * self.tokens_per_step, list[TextRow](), 0
        while tokens < target_tokens:
            batch = documents((self.seed, TRAIN, number, len(rows)), 1024, self.chat_share)
            for row in self._rows(batch):
                if tokens < target_tokens:
                    rows.append(row)
                    tokens += len(row.ids)
        return rows

    def _held_out(self, split: int) -> DataLoader[TextBatch]:
        rows = self._rows(documents((self.seed, split), self.val_documents, self.chat_share))
        count = max(1, sum(len(row.ids) for row in rows) // 8192)
        pad = self.tokenizer.get_vocab()[PAD]
        return DataLoader(TextBatches(lambda _: rows, count, pad, share(self), None), batch_size=None)

    def row_parts(self) -> list[dict[str, Any]]:
        """Return the settings that generate the documents for training, validation and test."""
        fit = {"tokens_per_step": self.tokens_per_step, "steps_per_epoch": self.steps_per_epoch}
        sizes = (fit, {"documents": self.val_documents}, {"documents": self.val_documents})
        recipe = {"pocket": ROWS, "chat_share": self.chat_share, "seed": self.seed}
        return [{**recipe, "split": split, **size} for split, size in enumerate(sizes)]

    def train_dataloader(self) -> DataLoader[TextBatch]:
        pad = self.tokenizer.get_vocab()[PAD]
        batches = TextBatches(self._block, STEPS_PER_BLOCK, pad, share(self), self.seed)
        return DataLoader(batches, batch_size=None, sampler=Onwards(self.steps_per_epoch))

    def val_dataloader(self) -> DataLoader[TextBatch]:
        return self._held_out(SELECT)

    def test_dataloader(self) -> DataLoader[TextBatch]:
        return self._held_out(TEST)

    predict_dataloader = test_dataloader
