"""Behaviours for steering: prompts with a continuation that shows the behaviour and one that does not.

A method is fitted to prompts that go on with either; what is scored are both continuations of held-out prompts. Rows
that share a prompt (in the pocket language, a topic) stay in one part of the split. Rows that share it, or both
continuations, are one cluster for intervals; continuations that are the same in all rows are labels and tie none.
"""

from collections.abc import Sequence

import lightning as L
from torch.utils.data import DataLoader

from lightning_steer.data.batches import share
from lightning_steer.data.behaviours.examples import BehaviourExample
from lightning_steer.data.behaviours.sources import (
    BehaviourSource,
    ChoicesFile,
    HalvesFile,
    PairsFile,
    PersonaFile,
    PocketBehaviour,
    ResponsesFile,
)
from lightning_steer.data.clusters import are_labels
from lightning_steer.data.contrasts import Contrasts, checked_shares, rank
from lightning_steer.data.questions import Contrast
from lightning_steer.data.readable import PARTS, Reader, TooLong, check_pairs, language_model
from lightning_steer.data.text import neutral_texts
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import Question
from lightning_steer.metrics.likelihood import NEGATIVE, POSITIVE
from lightning_steer.numbers import ranged

FIT, SELECT, TEST = range(3)


class BehaviourDataModule(L.LightningDataModule):
    """Examples of one behaviour, split by prompt.

    Args:
        source: where the examples come from.
        test: where the held-out ones come from, if not from ``source``; no prompt may be in both.
        suppress: steer away from the behaviour instead of towards it.
        fit_share: share of the prompts that a method is fitted to.
        select_share: share that the strength is chosen on; the rest is held out, or unused if there is a ``test``.
        neutral_file: texts that steering should leave alone, ``.txt`` (parted by blank lines) or ``.jsonl`` (``text``),
            to measure drift on; null for those that the source has.
        batch_size: examples in a batch, shared out over all processes.
        seed: draws the split.
        too_long: what is done with rows that are longer than the model reads: ``refuse`` stops and names one, ``skip``
            leaves them out, ``truncate_left`` keeps as much of the end of their prompts as can be read; options are
            never cut. Neutral texts are treated likewise. The report says how many rows of each part it was done to.
    """

    subject = "behaviours"
    paired = True
    notes: Sequence[str] = ()
    """Sentences for the report's warnings on the pairs themselves."""

    @ranged
    def __init__(
        self,
        source: BehaviourSource,
        test: BehaviourSource | None = None,
        suppress: bool = False,
        fit_share: float = 0.4,
        select_share: float = 0.1,
        neutral_file: str | None = None,
        batch_size: int = 64,
        seed: int = 0,
        too_long: TooLong = "refuse",
    ) -> None:
        super().__init__()
        self.reader = Reader(too_long, PARTS)
        self.source, self.test, self.batch_size, self.seed = source, test, batch_size, seed
        self.unwanted, self.wanted = (POSITIVE, NEGATIVE) if suppress else (NEGATIVE, POSITIVE)
        self.shares = checked_shares(fit_share, select_share)
        self.suppress, self.neutral_file = suppress, neutral_file
        self._read_by: LLM | None = None

    @property
    def task(self) -> str:
        """What is steered, for tables."""
        self.setup()
        return f"behaviour {self.parts[FIT][0].behaviour}: {'away from' if self.suppress else 'towards'} it"

    @property
    def neutral(self) -> list[str]:
        """Texts that steering should leave alone."""
        self.setup()
        return self._neutral

    def setup(self, stage: str | None = None) -> None:
        """Read and split, once."""
        if hasattr(self, "parts"):
            return
        found = self.source.read()
        prompts = list(dict.fromkeys(map(self.source.cluster, found)))
        if len(prompts) < 3:
            raise ValueError(
                f"{len(found)} examples with {len(prompts)} different prompts cannot be parted into a fitted, a "
                "selecting and a held-out part: give at least three prompts"
            )
        order, n = sorted(prompts, key=lambda name: rank(self.seed, name)), len(prompts)
        first = min(max(round(self.shares[FIT] * n), 1), n - 2)
        second = min(max(round((1 - self.shares[TEST]) * n), first + 1), n - 1)
        part_of = {name: (place >= first) + (place >= second) for place, name in enumerate(order)}
        self._neutral = self.source.neutral() if self.neutral_file is None else neutral_texts(self.neutral_file)
        self.parts = [[e for e in found if part_of[self.source.cluster(e)] == part] for part in (FIT, SELECT, TEST)]
        if self.test is not None:
            self.parts[TEST] = self.test.read()
            both = {example.prompt for part in self.parts[:TEST] for example in part}
            for example in self.parts[TEST]:
                if example.prompt in both:
                    raise ValueError(f"test example {example.id} has a prompt that is fitted to: {example.prompt!r}")
        labels = are_labels(example.continuations for part in self.parts for example in part)
        sources = (self.source, self.source, self.test or self.source)
        self.clusters: list[list[int]] = []
        for one, part in zip(sources, self.parts, strict=True):
            first = sum(len(earlier) for earlier in self.parts[: len(self.clusters)])
            self.clusters.append([first + number for number in one.clusters(part, labels)])
        self._whole = self.parts, self.clusters, self._neutral

    def read_by(self, llm: LLM) -> None:
        """Let a loaded model read all parts, before the first of them is used; raises ValueError naming a row."""
        if llm is self._read_by:
            return
        self.setup()
        parts, clusters, neutral = self._whole
        texts = [[(e.id, question(e)) for e in part] for part in parts]
        kept = self.reader.read(llm, texts, whole=(self.unwanted, self.wanted))
        self._neutral = self.reader.neutral(llm, neutral)
        self.parts = [[parts[k][i]._replace(prompt=q.prompt) for i, q in rows] for k, rows in enumerate(kept)]
        self.clusters = [[clusters[k][i] for i, _ in rows] for k, rows in enumerate(kept)]
        check_pairs(llm, ((e.id, question(e)) for part in self.parts for e in part), self.unwanted, self.wanted)
        self._read_by = llm

    def continued(self, part: int, most: int) -> list[Question]:
        """Return prompts of a part, each once and at most ``most``, with the continuation that is wanted after each."""
        self.setup()
        wanted: dict[str, Question] = {}
        for one in map(question, self.parts[part]):
            wanted.setdefault(one.prompt, Question(one.prompt, (one.options[self.wanted],)))
        return list(wanted.values())[:most]

    def _loader(self, part: int) -> DataLoader[Contrast]:
        self.setup()
        llm = language_model(self)
        if llm is not None:
            self.read_by(llm)
        questions, cluster = [question(example) for example in self.parts[part]], self.clusters[part]
        return Contrasts(questions, self.unwanted, self.wanted, cluster, self.batch_size, share(self)).loader()

    def train_dataloader(self) -> DataLoader[Contrast]:
        return self._loader(FIT)

    def val_dataloader(self) -> DataLoader[Contrast]:
        return self._loader(SELECT)

    def test_dataloader(self) -> list[DataLoader[Contrast]]:
        """Held-out prompts, and those that the method learned from."""
        return [self._loader(TEST), self._loader(FIT)]

    def predict_dataloader(self) -> DataLoader[Contrast]:
        return self._loader(TEST)


def question(example: BehaviourExample) -> Question:
    """Both continuations as options, each after a blank: the one that shows the behaviour first."""
    return Question(example.prompt, (f" {example.positive}", f" {example.negative}"))


__all__ = [
    "BehaviourDataModule",
    "BehaviourSource",
    "ChoicesFile",
    "HalvesFile",
    "PairsFile",
    "PersonaFile",
    "PocketBehaviour",
    "ResponsesFile",
    "question",
]
