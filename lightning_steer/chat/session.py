"""A conversation with a model at several strengths at once. Knows no terminal and no page.

Every strength is a column: a conversation of its own, steered at this strength from its first token. All columns are
written in one batch, a row each.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_steer.chat.following import Follower
from lightning_steer.chat.strengths import check_strengths, strength_range
from lightning_steer.errors import UserError
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.limits import TooLongError
from lightning_steer.lm.sites import site_of
from lightning_steer.vectors import SteeringVector, edit


class Turn(NamedTuple):
    """What the user wrote, and the answer of each column."""

    message: str
    answers: list[str]


class Session:
    """The state of a chat.

    Args:
        llm: the model. With ``llm.chat`` every column is a conversation in the tokenizer's chat template; without,
            every message is a text of its own that is continued.
        vector: what steers it.
        strengths: one for each column, in the vector's units; None for the one that does nothing and the card's.
        max_new_tokens: the longest answer.
        other_model: the vector was fitted on another model, and is to steer this one all the same.
        beside: further vectors, which steer every column at the strengths of their cards.

    Raises:
        ValueError: the vector does not belong to the model, or cannot be given these strengths.
    """

    def __init__(
        self,
        llm: LLM,
        vector: SteeringVector,
        strengths: Sequence[float] | None = None,
        max_new_tokens: int = 128,
        other_model: bool = False,
        beside: Sequence[SteeringVector] = (),
    ) -> None:
        llm.load()
        self.llm, self.max_new_tokens, self.other_model = llm, max_new_tokens, other_model
        self.beside = list(beside)
        self.turns: list[Turn] = []
        self.messages: list[str] = []  # of this conversation, or of the one before as long as this one repeats it
        self.set_vector(vector, strengths)

    # ---- what is set

    def set_vector(self, vector: SteeringVector, strengths: Sequence[float] | None = None) -> None:
        """Steer with another vector, in a new conversation; what could not be checked is in ``notes``, in sentences.

        Raises:
            ValueError: it belongs to another model, or cannot be given these strengths; all stays as it was.
        """
        own = dict.fromkeys((strength_range(vector).identity, vector.card.strength.value))
        chosen = list(map(float, own if strengths is None else strengths))
        check_strengths(vector, chosen)
        with warnings.catch_warnings(record=True) as unchecked:
            warnings.simplefilter("always")
            with edit(self.llm, [vector, *self.beside], self._amounts(chosen[0]), other_model=self.other_model):
                pass  # model, site and width are compared here, and not again before every answer
        self.vector, self.fitted = vector, vector
        self.strengths = chosen
        self.turns = []
        self.notes = [str(warning.message) for warning in unchecked if warning.category is UserWarning]

    def _amounts(self, strength: Tensor | float) -> list[Tensor | float]:
        """Return the strengths of the vector and of those beside it."""
        return [strength, *(vector.card.strength.value for vector in self.beside)]

    def set_strengths(self, strengths: Sequence[float]) -> None:
        """Have a column for each of these strengths, in a new conversation; raises ValueError."""
        check_strengths(self.vector, strengths)
        self.strengths, self.turns = list(map(float, strengths)), []

    @property
    def identity_strength(self) -> float:
        """The strength at which the vector does nothing."""
        return strength_range(self.vector).identity

    @property
    def layers(self) -> list[int | None]:
        """The decoder blocks that are steered."""
        return [site.layer for site in self.vector.card.sites]

    def set_layer(self, layer: int) -> None:
        """Steer another decoder block with the same vector, in a new conversation.

        Args:
            layer: counted from 0; negative from the end.

        Raises:
            ValueError: there is no such block, or the vector steers several.
        """
        card, depth = self.fitted.card, self.llm.decoder.depth
        if len(card.sites) > 1:
            blocks = ", ".join(str(site.layer) for site in card.sites)
            raise UserError(f"the vector steers blocks {blocks} together, and only one of a single block can be moved")
        if not -depth <= layer < depth:
            raise UserError(f"layer {layer} does not exist: {self.llm.name} has {depth}, counted from 0")
        (site,) = card.sites
        module = site_of(self.llm.model, layer % depth, site.part)
        moved = site._replace(layer=layer % depth, module=module)
        self.vector = self.fitted if moved == site else self.fitted._replace(card=card._replace(sites=[moved]))
        self.turns = []

    def at_strength(self, strength: float) -> SteeringVector:
        """Return the vector as it is used here, for saving at one strength.

        What its card says of effects was measured at the card's own layer and strength, and is left out elsewhere.
        """
        check_strengths(self.vector, [strength])
        card = self.vector.card
        if self.vector is self.fitted and strength == card.strength.value:
            return self.vector
        origin = self.fitted.card
        blocks = ", ".join(str(site.layer) for site in origin.sites)
        note = (
            f"Set by hand in a chat; fitted at block {blocks} and chosen there at strength {origin.strength.value:g}. "
            "Nothing was measured at this setting."
        )
        amount = card.strength._replace(value=strength, low=None, high=None, n=None)
        unmeasured = card._replace(strength=amount, effect={}, drift={}, certificate=None, warnings=[note])
        return self.vector._replace(card=unmeasured)

    # ---- what is said

    def ask(
        self,
        message: str,
        write: Callable[[list[str]], object] = lambda _texts: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> list[str]:
        """Answer a message in every column, all in one batch, greedily.

        Args:
            message: what the user says, or a text to be continued.
            write: given the texts of all columns so far, after every token, and the whole texts at the end.
            stopped: asked after every token; True ends the answer there.

        Returns:
            The text of each column. What was stopped is part of the conversation as far as it went.

        Raises:
            ValueError: the message is empty or too long, or a strength is more than the model can read.
        """
        if not message.strip():
            raise UserError("the message is empty: write what the model is to answer or to continue")
        check_text(message)
        model = self.llm.model
        ends = model.generation_config.eos_token_id
        follower = Follower(self.llm.tokenizer, ends if isinstance(ends, list) else [ends], write, stopped)
        strengths = torch.tensor(self.strengths)
        try:
            with edit(self.llm, [self.vector, *self.beside], self._amounts(strengths), other_model=True):
                answers = self.llm.generate(
                    self._prompts(message), max_new_tokens=self.max_new_tokens, stopping_criteria=[follower]
                )
        except TooLongError as error:
            hint = "/new begins another conversation" if self.turns else "shorten it, or give fewer new tokens"
            raise TooLongError(f"{error}; {hint}") from error
        write(answers)
        if any(answers) or not stopped():
            self.turns.append(Turn(message, answers))
            messages = [turn.message for turn in self.turns]
            if self.messages[: len(messages)] != messages:
                self.messages = messages
        return answers

    def _prompts(self, message: str) -> Sequence[Any]:
        """Return what each column goes on from: its own conversation, or the message alone."""
        if not self.llm.chat:
            return [message] * len(self.strengths)
        conversations = []
        for column in range(len(self.strengths)):
            turns = [] if self.llm.system is None else [{"role": "system", "content": self.llm.system}]
            for turn in self.turns:
                turns.append({"role": "user", "content": turn.message})
                turns.append({"role": "assistant", "content": turn.answers[column]})
            conversations.append([*turns, {"role": "user", "content": message}])
        return conversations


def check_text(text: str) -> None:
    """Raise ValueError if a text holds half a character, as it is made of bytes that are not UTF-8."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UserError("the line holds bytes that are no text in UTF-8: write it otherwise")
