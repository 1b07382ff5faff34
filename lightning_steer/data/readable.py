"""See, before anything is computed, that a language model can read every row of a data set and tell its sides apart."""

from collections.abc import Iterable
from typing import Any

from lightning_steer.data.own_words import InOwnWords
from lightning_steer.llm import LLM
from lightning_steer.tokens import Question


def language_model(data: Any) -> LLM | None:
    """Return the loaded language model of the module that a data module serves; None if it has none, or not yet."""
    backbone = getattr(getattr(data.trainer, "lightning_module", None), "backbone", None)
    backbone = backbone.plain if isinstance(backbone, InOwnWords) else backbone
    return backbone if isinstance(backbone, LLM) and backbone.tokenizer is not None else None


def check_pairs(llm: LLM, rows: Iterable[tuple[str, Question]], first: int, second: int) -> None:
    """Refuse rows that are too long, have no tokens of their own, or whose two compared options are the same tokens.

    Args:
        llm: the model, loaded.
        rows: every row's name, for messages, with its question.
        first: place of one of the two options that are compared.
        second: place of the other.

    Raises:
        ValueError: naming the first such row.
    """
    for name, question in rows:
        try:
            sides = [llm.rows([Question(question.prompt, (option,))])[0] for option in question.options]
        except ValueError as error:
            raise ValueError(f"row {name}: {error}") from error
        one, other = ([*sides[i].ids, sides[i].reads[-1][1]] for i in (first, second))
        if one == other:
            raise ValueError(
                f"row {name}: {llm.name} reads {question.options[first]!r} and {question.options[second]!r} as the "
                f"same tokens after {question.prompt[-40:]!r}, so they cannot be told apart: write one otherwise, or "
                "leave the row out"
            )


def check_lengths(llm: LLM, prompts: Iterable[str], options: tuple[str, ...]) -> None:
    """Refuse prompts that are too long for the model together with an option; raises ValueError naming the row.

    Args:
        llm: the model, loaded.
        prompts: as the data have them, without a chat template.
        options: the same for all prompts.
    """
    texts = [llm.prompt(prompt) for prompt in prompts]
    room = max(len(llm.tokenizer(option, add_special_tokens=False)["input_ids"]) for option in options) + 2
    encoded = llm.tokenizer(texts, add_special_tokens=not llm.chat)["input_ids"]
    for number, (prompt, ids) in enumerate(zip(prompts, encoded, strict=True), 1):
        if len(ids) + room > llm.longest:
            try:
                llm.rows([Question(prompt, options)])
            except ValueError as error:
                raise ValueError(f"row {number}: {error}") from error
