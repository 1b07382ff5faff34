"""Behaviours for steering: prompts with a continuation that shows the behaviour and one that does not.

A method is fitted to prompts with either continuation; evaluation scores both continuations of held-out prompts. Rows
that share a prompt (in the pocket language, a topic) stay in one part of the split. Intervals treat rows that share the
prompt or both continuations as one cluster; continuations that are the same in all rows are labels and tie none.
"""

from collections.abc import Sequence

from torch.utils.data import DataLoader

from lightning_steer.data.base import PairBatch, SteeringDataModule
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
from lightning_steer.data.pair_batches import PairBatches, checked_shares, rank
from lightning_steer.data.readable import PARTS, Reader, TooLong, check_pairs, language_model
from lightning_steer.data.text import read_texts
from lightning_steer.errors import UserError
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.metrics.likelihood import NEGATIVE, POSITIVE
from lightning_steer.numbers import ranged
from lightning_steer.pair_texts import options

FIT, SELECT, TEST = range(3)


class BehaviourDataModule(SteeringDataModule):
    """Examples of one behaviour, split by prompt.

    Args:
        source: where the examples come from, such as PairsFile, which reads your own pairs from its ``path``.
        test: where the held-out examples come from, if not from ``source``; no prompt may be in both.
        suppress: steer away from the behaviour instead of towards it.
        fit_share: share of the prompts that a method is fitted to.
        select_share: share used to choose the strength; the rest is held out, or unused if there is a ``test``.
        reference_texts: a file of texts that steering should not change, to measure drift on: ``.txt`` (blank lines
            between texts) or ``.jsonl`` (``{"text": ...}`` on each line); null for those of the source.
        batch_size: examples in a batch, shared out over all processes.
        seed: draws the split.
        too_long: how to treat rows longer than the model's context: ``refuse`` stops and names one, ``skip`` leaves
            them out, ``truncate_left`` keeps the longest readable end of their prompts; options are never cut.
            Neutral texts are treated alike. The report counts these rows for each part.
    """

    subject = "behaviours"
    paired = True
    notes: Sequence[str] = ()
    """Sentences for the report's warnings on the pairs themselves."""

    reader: Reader

    @ranged
    def __init__(
        self,
        source: BehaviourSource,
        test: BehaviourSource | None = None,
        suppress: bool = False,
        fit_share: float = 0.4,
        select_share: float = 0.1,
        reference_texts: str | None = None,
        batch_size: int = 64,
        seed: int = 0,
        too_long: TooLong = "refuse",
    ) -> None:
        super().__init__()
        self.reader = Reader(too_long, PARTS)
        self.source, self.test, self.batch_size, self.seed = source, test, batch_size, seed
        self.negative, self.positive = (POSITIVE, NEGATIVE) if suppress else (NEGATIVE, POSITIVE)
        self.shares = checked_shares(fit_share, select_share)
        self.suppress, self.reference_file = suppress, reference_texts
        self._read_by: LLM | None = None

    @property
    def task(self) -> str:
        """Describe what is steered, for tables."""
        self.setup()
        return f"behaviour {self.parts[FIT][0].behaviour}: {'away from' if self.suppress else 'towards'} it"

    @property
    def reference_texts(self) -> list[str]:
        """Return texts that steering should leave alone."""
        self.setup()
        return self._reference_texts

    def setup(self, stage: str | None = None) -> None:
        """Read and split the examples, once."""
        if hasattr(self, "parts"):
            return
        examples = self.source.read()
        prompts = list(dict.fromkeys(map(self.source.cluster, examples)))
        if len(prompts) < 3:
            raise UserError(
                f"{len(examples)} examples with {len(prompts)} different prompts cannot be parted into a fitted, a "
                "selecting and a held-out part: give at least three prompts"
            )
        order, n = sorted(prompts, key=lambda name: rank(self.seed, name)), len(prompts)
        select_start = min(max(round(self.shares[FIT] * n), 1), n - 2)
        test_start = min(max(round((1 - self.shares[TEST]) * n), select_start + 1), n - 1)
        part_of = {name: (place >= select_start) + (place >= test_start) for place, name in enumerate(order)}
        self._reference_texts = (
            self.source.own_reference_texts() if self.reference_file is None else read_texts(self.reference_file)
        )
        self.parts = [[e for e in examples if part_of[self.source.cluster(e)] == part] for part in (FIT, SELECT, TEST)]
        if self.test is not None:
            self.parts[TEST] = self.test.read()
            trained = {example.origin for part in self.parts[:TEST] for example in part}
            for example in self.parts[TEST]:
                if example.origin in trained:
                    raise UserError(f"test example {example.id} has a prompt that is fitted to: {example.prompt!r}")
        labels = are_labels(example.continuations for part in self.parts for example in part)
        sources = (self.source, self.source, self.test or self.source)
        self.clusters: list[list[int]] = []
        for source, part in zip(sources, self.parts, strict=True):
            offset = sum(len(earlier) for earlier in self.parts[: len(self.clusters)])
            self.clusters.append([offset + number for number in source.clusters(part, labels)])
        self._whole = self.parts, self.clusters, self._reference_texts

    def read_by(self, llm: LLM) -> None:
        """Check with a loaded model that all parts can be read; raises ValueError naming a row."""
        if llm is self._read_by:
            return
        self.setup()
        parts, clusters, reference = self._whole
        texts = [[(e.id, question(e)) for e in part] for part in parts]
        readable = self.reader.read(llm, texts, whole=(self.negative, self.positive))
        self._reference_texts = self.reader.reference_texts(llm, reference)
        self.parts = [[parts[k][i]._replace(prompt=q.prompt) for i, q in rows] for k, rows in enumerate(readable)]
        self.clusters = [[clusters[k][i] for i, _ in rows] for k, rows in enumerate(readable)]
        check_pairs(llm, ((e.id, question(e)) for part in self.parts for e in part), self.negative, self.positive)
        self._read_by = llm

    def continued(self, part: int, most: int) -> list[MultipleChoice]:
        """Return at most ``most`` different prompts of a part, each with its positive continuation."""
        self.setup()
        questions: dict[str, MultipleChoice] = {}
        for choice in map(question, self.parts[part]):
            questions.setdefault(choice.prompt, MultipleChoice(choice.prompt, (choice.choices[self.positive],)))
        return list(questions.values())[:most]

    def _loader(self, part: int) -> DataLoader[PairBatch]:
        self.setup()
        llm = language_model(self)
        if llm is not None:
            self.read_by(llm)
        questions, cluster = [question(example) for example in self.parts[part]], self.clusters[part]
        return PairBatches(questions, self.negative, self.positive, cluster, self.batch_size, share(self)).loader()

    def train_dataloader(self) -> DataLoader[PairBatch]:
        return self._loader(FIT)

    def val_dataloader(self) -> DataLoader[PairBatch]:
        return self._loader(SELECT)

    def test_dataloader(self) -> list[DataLoader[PairBatch]]:
        """Return loaders of the held-out prompts and of those that the method was fitted to."""
        return [self._loader(TEST), self._loader(FIT)]

    def predict_dataloader(self) -> DataLoader[PairBatch]:
        return self._loader(TEST)


def question(example: BehaviourExample) -> MultipleChoice:
    """Return both continuations as options; the positive one comes first."""
    return MultipleChoice(example.prompt, options(example.prompt, example.positive, example.negative))


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
