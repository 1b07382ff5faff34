"""A backbone whose answers are generated: whatever steers or probes a language model does so at its own answers."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_steer.data.mera.generated_answers import Answering, answers
from lightning_steer.hooks import Edit
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import Question
from lightning_steer.metrics.drift import TextDrift
from lightning_steer.networks.backbone import Backbone


class InOwnWords(Backbone):
    """A language model that answers in its own words, and is graded where its first label begins.

    Scores have a column behind those of the options: ``no label``, certain where none was written and impossible
    elsewhere. A steered model is steered while it writes and while it is graded, and every copy writes for itself.

    Args:
        llm: the model, loaded.
        answering: how long it may write.
    """

    def __init__(self, llm: LLM, answering: Answering) -> None:
        super().__init__()
        self.plain, self.answering, self.sites, self.name = llm, answering, llm.sites, llm.name

    @classmethod
    def if_asked(cls, backbone: Backbone, data: Any) -> Backbone:
        """The loaded backbone as it is, or answering in its own words if the data module has an ``answering``."""
        answering = getattr(data, "answering", None)
        return cls(backbone, answering) if answering is not None and isinstance(backbone, LLM) else backbone

    def load(self) -> None:
        self.plain.load()

    def check(self, data: Any) -> None:
        self.plain.check(data)

    def width(self, site: str) -> int:
        return self.plain.width(site)

    def activations(self, inputs: Sequence[Question]) -> dict[str, Tensor]:
        return self.observe(inputs)[1]

    def observe(self, inputs: Sequence[Question]) -> tuple[Tensor, dict[str, Tensor]]:
        (found,) = answers(self.plain, inputs, None, 1, self.answering)
        scores, h = self.plain.observe(found.questions)
        return found.scored(scores), h

    def scores(self, inputs: Sequence[Question], edits: Mapping[str, Edit] | None = None, copies: int = 1) -> Tensor:
        steering = {site: _folded(function, copies) for site, function in (edits or {}).items()}
        found = []
        for i, answered in enumerate(answers(self.plain, inputs, steering, copies, self.answering)):
            one = {site: _copy(function, copies, i) for site, function in (edits or {}).items()}
            found.append(answered.scored(self.plain.scores(answered.questions, one)[0]))
        return torch.stack(found)

    def drift(self, texts: Sequence[str], edits: Mapping[str, Edit], copies: int = 1) -> TextDrift:
        """As :meth:`LLM.drift`."""
        return self.plain.drift(texts, edits, copies)


def _folded(function: Edit, copies: int) -> Edit:
    """An edit of ``[copies, B, ...]`` as one of ``[copies * B, ...]``."""
    return lambda h: function(h.unflatten(0, (copies, -1))).flatten(0, 1)


def _copy(function: Edit, copies: int, i: int) -> Edit:
    """What an edit of ``[copies, B, ...]`` does to copy i, as an edit of ``[1, B, ...]``."""
    return lambda h: function(h.expand(copies, *h.shape[1:]))[i : i + 1]
