"""Behaviours for steering: prompts with a continuation that shows the behaviour and one that does not.

A method is fitted to prompts with either continuation; evaluation scores both continuations of held-out prompts. Rows
that share a prompt (in the pocket language, a topic) stay in one part of the split. Intervals treat rows that share the
prompt or both continuations as one cluster; continuations that are the same in all rows are labels and tie none.
"""

from collections.abc import Sequence

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
from lightning_steer.data.pair_batches import checked_shares, rank
from lightning_steer.data.pair_module import FIT, SELECT, TEST, PairDataModule
from lightning_steer.data.readable import TooLong
from lightning_steer.data.text import read_texts
from lightning_steer.errors import UserError
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.metrics.likelihood import NEGATIVE, POSITIVE
from lightning_steer.numbers import ranged
from lightning_steer.pair_texts import options


class BehaviourDataModule(PairDataModule):
    """Examples of one behaviour, split by prompt.

    Args:
        source: where the examples come from, such as PairsFile, which reads your own pairs from its ``path``.
        test: where the held-out examples come from, if not from ``source``; no prompt may be in both.
        suppress: steer away from the behaviour instead of towards it.
        fit_share: share of the prompts that a method is fitted to.
        select_share: share used to choose the strength; the rest is held out, or unused if there is a ``test``.
        reference_texts: a file of texts that steering should not change, to measure drift on: ``.txt`` (blank lines
            between texts) or ``.jsonl`` (``{"text": ...}`` on each line); null for the texts that the source names.
        batch_size: examples in a batch, shared out over all processes.
        seed: draws the split.
        too_long: how to treat rows longer than the model's context: ``refuse`` stops and names one, ``skip`` leaves
            them out, ``truncate_left`` keeps the longest readable end of their prompts; options are never cut.
            Neutral texts are treated alike. The report counts these rows for each part.
    """

    subject = "behaviours"
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
        reference_texts: str | None = None,
        batch_size: int = 64,
        seed: int = 0,
        too_long: TooLong = "refuse",
    ) -> None:
        super().__init__(too_long, batch_size, (POSITIVE, NEGATIVE) if suppress else (NEGATIVE, POSITIVE))
        self.source, self.test, self.seed = source, test, seed
        self.shares = checked_shares(fit_share, select_share)
        self.suppress, self.reference_file = suppress, reference_texts

    @property
    def task(self) -> str:
        """Describe what is steered, for tables."""
        self.setup()
        return f"behaviour {self.parts[FIT][0].behaviour}: {'away from' if self.suppress else 'towards'} it"

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
        source = self.source
        reference = source.own_reference_texts() if self.reference_file is None else read_texts(self.reference_file)
        parts = [[e for e in examples if part_of[source.cluster(e)] == part] for part in (FIT, SELECT, TEST)]
        if self.test is not None:
            parts[TEST] = self.test.read()
            trained = {example.origin for part in parts[:TEST] for example in part}
            for example in parts[TEST]:
                if example.origin in trained:
                    raise UserError(f"test example {example.id} has a prompt that is fitted to: {example.prompt!r}")
        labels = are_labels(example.continuations for part in parts for example in part)
        clusters: list[list[int]] = []
        for source, part in zip((self.source, self.source, self.test or self.source), parts, strict=True):
            offset = sum(len(earlier) for earlier in parts[: len(clusters)])
            clusters.append([offset + number for number in source.clusters(part, labels)])
        self.keep(parts, clusters, reference)

    def choices(self, example: BehaviourExample) -> MultipleChoice:
        """Return the example's prompt and its two continuations."""
        return question(example)

    def with_prompt(self, example: BehaviourExample, prompt: str) -> BehaviourExample:
        """Return the example with another prompt."""
        return example._replace(prompt=prompt)

    def continued(self, part: int, most: int) -> list[MultipleChoice]:
        """Return at most ``most`` different prompts of a part, each with its positive continuation."""
        self.setup()
        questions: dict[str, MultipleChoice] = {}
        for choice in map(question, self.parts[part]):
            questions.setdefault(choice.prompt, MultipleChoice(choice.prompt, (choice.choices[self.positive],)))
        return list(questions.values())[:most]


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
