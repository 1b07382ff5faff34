"""The interface between modules and their data: the base data module, and the batches of language tasks."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, TypeVar, cast

import lightning as L
import torch
from torch import Tensor

from lightning_steer.lm.tokens import MultipleChoice

if TYPE_CHECKING:
    from lightning_steer.data.mera.generated_answers import Answering
    from lightning_steer.data.readable import Reader
    from lightning_steer.lm.language_model import LLM


class SteeringDataModule(L.LightningDataModule):
    """Base class of the project's data modules; a subclass overrides the attributes that apply to it."""

    subject: ClassVar[str] = ""
    """The kind of the rows, for evaluations that accept one kind only; empty for any."""
    task: str = ""
    """The task's name in tables."""
    paired: bool = False
    """Whether the i-th positive and the i-th negative differ only in the steered property."""
    labels: Sequence[str] = ()
    """Names of the labels; none where rows have no label."""
    answering: "Answering | None" = None
    """How the model answers in generated text; None where continuations are scored."""
    reader: "Reader | None" = None
    """Refuses, skips or cuts rows that are too long; None where no language model reads them."""
    notes: Sequence[str] = ()
    """Sentences on the rows for the report."""
    grouped_by: ClassVar[str] = ""
    """What :attr:`held_out_groups` are, such as ``bias type``."""
    held_out_groups: Sequence[str] = ()
    """The group of each held-out row, which a report shows apart; empty if there are no groups."""
    reference_texts: Sequence[str] | None = None
    """Texts that steering should leave alone; None where rows are not text or only answers are evaluated."""

    def read_by(self, llm: "LLM") -> None:
        """Check with a loaded model that it can read all rows; raises ValueError naming one that it cannot."""

    def row_parts(self) -> Sequence[Any] | None:
        """Return a generator or identifier of each row of the three parts; None to hash the rows themselves."""
        return None


Data = TypeVar("Data", bound=SteeringDataModule)


def data_of(trainer: L.Trainer, kind: type[Data]) -> Data:
    """Return a trainer's data module, typed as ``kind``."""
    return cast(Data, cast(Any, trainer).datamodule)


class SteeringBatch(Protocol):
    """A batch of rows with a steering task."""

    @property
    def x(self) -> Any:
        """Inputs whose outputs are scored."""

    @property
    def row(self) -> Tensor:
        """``[B]`` int64: row numbers in the split."""
        ...

    @property
    def cluster(self) -> Tensor:
        """``[B]`` int64: rows of one cluster are not independent."""
        ...

    @property
    def pair(self) -> tuple[Any, Any] | None:
        """Negative and positive inputs to fit a method to; None where the network's own error separates them."""

    @property
    def values(self) -> Tensor:
        """``[B, k, attributes]`` int64 attribute values of the inputs to fit to; k = 2 for a pair, else 1."""
        ...

    @property
    def moved(self) -> Any:
        """Inputs whose displacement is reported."""

    @property
    def known_positive(self) -> Any | None:
        """Each row's own positive input, for the oracle patch; None where it has none."""

    @property
    def compared_texts(self) -> list[list[str]] | None:
        """The texts that each row compares, to tell rows that compare the same; None where it compares none."""


class Observed(NamedTuple):
    """The unsteered model's scores and activations on questions, as ``Backbone.observe`` returns them."""

    scores: Tensor
    """``[B, options]`` log-probabilities."""
    h: dict[str, Tensor]
    """``{site: [B, d]}`` activations at the tokens that are read."""


class LabelledBatch(NamedTuple):
    """Questions with known right answers; the model's error decides which rows are negatives."""

    x: list[MultipleChoice]
    """Prompts with the written variants of all labels as options, the same options in every row."""
    y: Tensor
    """``[B]`` int64: the right label."""
    label_of: Tensor
    """``[options]`` int64: the label that each option is a variant of."""
    row: Tensor
    """``[B]`` int64: row numbers in the split, independent of batches and processes."""
    seen: Observed | None = None
    """Recorded observations of these rows; None if the model has to run."""
    group: Tensor | None = None
    """``[B]`` int64: each row's group of dependent rows; None if all rows are independent."""

    @property
    def cluster(self) -> Tensor:
        """Return ``[B]`` int64: the rows' groups, or each row by itself."""
        return self.row if self.group is None else self.group

    @property
    def pair(self) -> None:
        """Return None: the network's own error tells positives from negatives."""

    @property
    def values(self) -> Tensor:
        """Return ``[B, 1, 1]`` int64: the right labels."""
        return self.y.reshape(-1, 1, 1)

    @property
    def moved(self) -> list[MultipleChoice]:
        """Return the prompts."""
        return self.x

    @property
    def known_positive(self) -> None:
        """Return None: no row has a positive of its own."""

    @property
    def compared_texts(self) -> None:
        """Return None: the options are the same in every row."""

    @property
    def content(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Return the columns of each row's input, and of its fitting target."""
        return (self.x,), (self.y, [self.label_of.tolist()] * len(self.x))


class PairBatch(NamedTuple):
    """Pairs of texts that differ in the concept to steer, and questions that measure the effect."""

    x: list[MultipleChoice]
    """Prompts with the continuations that are scored."""
    negative: list[MultipleChoice]
    """Negative texts, whose activations steering moves away from: a prompt and one option each."""
    positive: list[MultipleChoice]
    """Positive texts, whose activations steering moves towards."""
    y: Tensor
    """``[B]`` int64: each row's cluster of dependent rows (target term, prompt)."""
    row: Tensor
    """``[B]`` int64: row numbers in the split."""

    @property
    def cluster(self) -> Tensor:
        """Return ``[B]`` int64: the rows' clusters."""
        return self.y

    @property
    def pair(self) -> tuple[list[MultipleChoice], list[MultipleChoice]]:
        """Return negative and positive texts."""
        return self.negative, self.positive

    @property
    def moved(self) -> list[MultipleChoice]:
        """Return the negative texts, which a method was fitted to."""
        return self.negative

    @property
    def known_positive(self) -> None:
        """Return None: a row's positive is another text, not another state of the same one."""

    @property
    def compared_texts(self) -> list[list[str]]:
        """Return the continuations of each pair, negative and positive."""
        return [[*a.choices, *b.choices] for a, b in zip(self.negative, self.positive, strict=True)]

    @property
    def values(self) -> Tensor:
        """Return ``[B, 2, 1]`` int64: 0 for every negative text, 1 for every positive one."""
        return torch.tensor([0, 1], device=self.row.device).view(1, 2, 1).expand(len(self.row), 2, 1)

    @property
    def content(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Return the columns of each row's input, and of its fitting target; clusters are numbered over all parts."""
        return (self.x,), (self.negative, self.positive)
