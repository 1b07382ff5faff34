"""A backbone that generates its answers: steering and probing act at the generated label."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_steer.data.mera.generated_answers import Answering, answers
from lightning_steer.hooks import Edit
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.metrics.drift import TextDrift
from lightning_steer.networks.backbone import Backbone


class GeneratedAnswerBackbone(Backbone):
    """A language model that generates its answer and is graded where its first label begins.

    Scores have one more column after the options: ``no label``, with probability 1 where the answer has none, else 0.
    Steering acts while the model generates and while it is graded; every copy generates its own answer.

    Args:
        llm: the model, loaded.
        answering: settings of the generated answers.
    """

    def __init__(self, llm: LLM, answering: Answering) -> None:
        super().__init__()
        self.plain, self.answering, self.sites, self.name = llm, answering, llm.sites, llm.name

    @classmethod
    def if_asked(cls, backbone: Backbone, data: Any) -> Backbone:
        """Return the loaded backbone, wrapped to generate its answers if the data module has an ``answering``."""
        answering = data.answering
        return cls(backbone, answering) if answering is not None and isinstance(backbone, LLM) else backbone

    def load(self) -> None:
        self.plain.load()

    def check(self, data: Any) -> None:
        self.plain.check(data)

    def width(self, site: str) -> int:
        return self.plain.width(site)

    def heads(self, site: str) -> int:
        return self.plain.heads(site)

    def sensitivity(self, inputs: Sequence[MultipleChoice], prompts: bool = False) -> dict[str, Tensor]:
        (answered,) = answers(self.plain, inputs, None, 1, self.answering)
        return self.plain.sensitivity(answered.questions, prompts=True)

    def activations(self, inputs: Sequence[MultipleChoice]) -> dict[str, Tensor]:
        return self.observe(inputs)[1]

    def observe(self, inputs: Sequence[MultipleChoice]) -> tuple[Tensor, dict[str, Tensor]]:
        (answered,) = answers(self.plain, inputs, None, 1, self.answering)
        scores, h = self.plain.observe(answered.questions)
        return answered.scored(scores), h

    def scores(
        self, inputs: Sequence[MultipleChoice], edits: Mapping[str, Edit] | None = None, copies: int = 1
    ) -> Tensor:
        steering = {site: _folded(function, copies) for site, function in (edits or {}).items()}
        copy_scores = []
        for i, answered in enumerate(answers(self.plain, inputs, steering, copies, self.answering)):
            copy_edits = {site: _copy(function, copies, i) for site, function in (edits or {}).items()}
            copy_scores.append(answered.scored(self.plain.scores(answered.questions, copy_edits)[0]))
        return torch.stack(copy_scores)

    def drift(self, texts: Sequence[str], edits: Mapping[str, Edit], copies: int = 1) -> TextDrift:
        """Measure drift as :meth:`LLM.drift` does."""
        return self.plain.drift(texts, edits, copies)


def _folded(function: Edit, copies: int) -> Edit:
    """Turn an edit of ``[copies, B, ...]`` into one of ``[copies * B, ...]``."""
    return lambda h: function(h.unflatten(0, (copies, -1))).flatten(0, 1)


def _copy(function: Edit, copies: int, i: int) -> Edit:
    """Restrict an edit of ``[copies, B, ...]`` to copy i, as an edit of ``[1, B, ...]``."""
    return lambda h: function(h.expand(copies, *h.shape[1:]))[i : i + 1]
