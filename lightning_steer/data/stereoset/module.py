"""StereoSet for steering: contexts with a stereotype, its opposite and an unrelated sentence, split by target term.

A method is fitted to contexts followed by the stereotype and by its opposite. Evaluation scores all three sentences
after the context (intersentence), or the three whole sentences from the beginning of the text (intrasentence, as in
the official scoring). Source: Nadeem et al. 2021, arXiv 2004.09456.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_steer.data.pair_batches import checked_shares, in_chat
from lightning_steer.data.pair_module import TEST, PairDataModule
from lightning_steer.data.pocket import items as pocket_items
from lightning_steer.data.pocket import stereotypes as pocket_stereotypes
from lightning_steer.data.readable import TooLong
from lightning_steer.data.stereoset.examples import (
    INTERSENTENCE,
    INTRASENTENCE,
    StereoSetExample,
    of_hub_rows,
    read_official,
    sample,
    split_by_term,
    term_of,
)
from lightning_steer.data.stereoset.hub import of_folder, of_hub
from lightning_steer.data.text import read_texts
from lightning_steer.errors import UserError
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.metrics.stereoset import ANTI, STEREOTYPE
from lightning_steer.numbers import ranged


class StereoSetDataModule(PairDataModule):
    """StereoSet, split by target term: held-out terms occur neither in fitting nor in selection.

    Args:
        source: the official dev.json, a hub name, or a folder as on the hub (``intersentence/validation*.parquet`` or
            ``.jsonl``).
        tasks: ``intersentence``, ``intrasentence`` or both.
        bias_types: the bias types to keep; null for all.
        per_type: examples of each bias type, drawn before the split; null for all.
        promote: steer towards stereotypes instead of away from them.
        fit_share: share of every bias type's target terms that a method is fitted to.
        select_share: share used to choose the strength; the rest is held out.
        reference_texts: a file of texts that steering should leave alone, to measure drift on: ``.txt`` (parted by
            blank lines) or ``.jsonl`` (``text``); null for none.
        batch_size: examples in a batch, shared out over all processes.
        seed: draws the sample and the split.
        too_long: how to treat rows longer than the model's context: ``refuse`` stops and names one, ``skip`` leaves
            them out, ``truncate_left`` keeps the longest readable end of their prompts; options are never cut.
            Neutral texts are treated alike. The report counts these rows for each part.
    """

    subject = "stereotypes"
    grouped_by = "bias type"

    @ranged
    def __init__(
        self,
        source: str = "McGill-NLP/stereoset",
        tasks: Sequence[str] = (INTERSENTENCE,),
        bias_types: Sequence[str] | None = None,
        per_type: int | None = None,
        promote: bool = False,
        fit_share: float = 0.4,
        select_share: float = 0.1,
        reference_texts: str | None = None,
        batch_size: int = 64,
        seed: int = 0,
        too_long: TooLong = "refuse",
    ) -> None:
        super().__init__(too_long, batch_size, (ANTI, STEREOTYPE) if promote else (STEREOTYPE, ANTI))
        if not tasks or set(tasks) - {INTERSENTENCE, INTRASENTENCE}:
            raise UserError(f"tasks are {INTERSENTENCE}, {INTRASENTENCE} or both, not {list(tasks)}")
        self.source, self.tasks, self.bias_types, self.per_type = source, list(tasks), bias_types, per_type
        self.shares, self.seed = checked_shares(fit_share, select_share), seed
        self.reference_file = reference_texts
        types = "all bias types" if bias_types is None else " and ".join(bias_types)
        aim = "towards" if promote else "away from"
        self.task = f"stereotypes of {source}, {' and '.join(tasks)}, {types}: {aim} them"

    def examples(self) -> list[StereoSetExample]:
        """Read all examples of the source; a subclass may override this."""
        path = Path(self.source)
        if path.is_file():
            return [example for example in read_official(path) if example.task in self.tasks]
        rows = of_folder if path.is_dir() else of_hub
        return [example for task in self.tasks for example in of_hub_rows(rows(self.source, task), task)]

    def own_reference_texts(self) -> list[str]:
        """Return the source's texts that steering should leave alone; none here, but a subclass may have some."""
        return []

    @property
    def held_out_groups(self) -> list[str]:
        """Return the bias type of each held-out example."""
        self.setup()
        return [example.bias_type for example in self.parts[TEST]]

    def setup(self, stage: str | None = None) -> None:
        """Read and split the examples, once."""
        if hasattr(self, "parts"):
            return
        examples = self.examples()
        if self.bias_types is not None:
            available = list(dict.fromkeys(example.bias_type for example in examples))
            unknown = [name for name in self.bias_types if name not in available]
            if unknown or not self.bias_types:
                raise UserError(
                    f"{self.source} has no bias type {', '.join(unknown) or 'for an empty list'}; "
                    f"it has {', '.join(available)}"
                )
            examples = [example for example in examples if example.bias_type in self.bias_types]
        if self.per_type is not None:
            examples = sample(examples, self.per_type, self.seed)
        reference = self.own_reference_texts() if self.reference_file is None else read_texts(self.reference_file)
        parts = split_by_term(examples, self.shares, self.seed)
        terms = sorted({term_of(example) for example in examples})
        self.term = {term: number for number, term in enumerate(terms)}
        self.keep(parts, [[self.term[term_of(example)] for example in part] for part in parts], reference)

    def choices(self, example: StereoSetExample) -> MultipleChoice:
        """Return the example's context and its three continuations or sentences."""
        return question(example)

    def with_prompt(self, example: StereoSetExample, prompt: str) -> StereoSetExample:
        """Return the example with its context replaced; intrasentence examples have no prompt to cut."""
        return example if example.task == INTRASENTENCE else example._replace(context=prompt)


class PocketStereoSetDataModule(StereoSetDataModule):
    """The pocket language's stereotypes in StereoSet's form: 576 examples with known true probabilities.

    Args:
        tone: what the opener reveals about the speaker: ``neutral``, ``harsh`` or ``mild``; not for chats.
        held_frames: use sentence frames that training lacks, or those that it has.
        chat: questions in chat form, the form's marks written out: leave the language model's own ``chat`` off.
        settings: what :class:`StereoSetDataModule` takes.
    """

    def __init__(self, tone: str = "neutral", held_frames: bool = True, chat: bool = False, **settings: Any) -> None:
        super().__init__(source="the pocket language", **settings)
        if tone not in pocket_stereotypes.TONES:
            raise UserError(f"tone is one of {', '.join(pocket_stereotypes.TONES)}, not {tone!r}")
        if self.tasks != [INTERSENTENCE]:
            raise UserError(f"the pocket language has {INTERSENTENCE} examples only, not {' and '.join(self.tasks)}")
        self.tone, self.held_frames, self.chat = tone, held_frames, chat
        self.task += f", {'chat' if chat else tone + ' plain text'}"

    def items(self) -> list[pocket_items.StereotypeItem]:
        """Return the examples with their ground truth, in the same order and with the same ids."""
        return pocket_items.stereotype_items(self.tone, self.held_frames, self.chat, self.seed)

    def own_reference_texts(self) -> list[str]:
        """Return the language's stories."""
        return [text for text, _ in pocket_items.neutral_texts(64, self.seed)]

    def examples(self) -> list[StereoSetExample]:
        return [
            StereoSetExample(
                item.id,
                INTERSENTENCE,
                item.bias_type,
                item.target,
                in_chat(item.prompt) if self.chat else item.prompt,
                item.stereotype,
                item.anti_stereotype,
                item.unrelated,
                tuple(f"{item.id}/{label}" for label in ("stereotype", "anti-stereotype", "unrelated")),
                None,
            )
            for item in self.items()
        ]


def question(example: StereoSetExample) -> MultipleChoice:
    """Return the three sentences as options: after the context and a blank, or (intrasentence) without a prompt."""
    sentences = tuple(sentence.strip() for sentence in example.sentences)
    if example.task == INTRASENTENCE:
        return MultipleChoice("", sentences)
    return MultipleChoice(example.context.rstrip(), tuple(f" {sentence}" for sentence in sentences))
