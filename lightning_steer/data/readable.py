"""Check, before anything is computed, that a model can read every row and tell its options apart."""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

from lightning.pytorch.utilities import rank_zero_only

from lightning_steer.data.base import SteeringDataModule
from lightning_steer.data.mera.generated_backbone import GeneratedAnswerBackbone
from lightning_steer.errors import UserError
from lightning_steer.escapes import say
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.limits import TooLongError
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.networks.backbone import Backbone

TooLong = Literal["refuse", "skip", "truncate_left"]
"""How to treat rows that are longer than the model's context."""
PARTS = ("fitted", "selection", "held-out")
"""Names of the parts of pair data, for the report."""
Part = Sequence[tuple[str, MultipleChoice]]
"""Every row's name, for messages, with its question."""


def language_model(data: SteeringDataModule) -> LLM | None:
    """Return the language model of a data module's LightningModule; None if there is none or it is not loaded."""
    return _loaded(getattr(getattr(data.trainer, "lightning_module", None), "backbone", None))


def read_all(data: SteeringDataModule, backbone: Backbone) -> None:
    """Check with a loaded language model that it can read all rows of a data module; raises ValueError naming a row."""
    llm = _loaded(backbone)
    if llm is not None:
        data.read_by(llm)


def notes(data: SteeringDataModule) -> list[str]:
    """Return sentences for the report on skipped or cut rows, and on text that rows share."""
    return [*(data.reader.notes if data.reader else []), *data.notes]


def held_out_names(data: SteeringDataModule) -> list[tuple[int, str]]:
    """Return the position (skipped rows counted) and name of each held-out row; empty if no model read the data."""
    return data.reader.held_out if data.reader else []


def _loaded(backbone: Any) -> LLM | None:
    backbone = backbone.plain if isinstance(backbone, GeneratedAnswerBackbone) else backbone
    return backbone if isinstance(backbone, LLM) and backbone.tokenizer is not None else None


class Reader:
    """Refuse, skip or cut the rows that are longer than a model reads, and count them.

    Args:
        too_long: ``refuse`` raises, ``skip`` leaves a row out with all of its options, ``truncate_left`` keeps as much
            of the end of a prompt as can be read. Options are never cut.
        parts: names of the data's parts, for the report.

    Raises:
        ValueError: ``too_long`` is not one of the three rules.
    """

    def __init__(self, too_long: TooLong, parts: Sequence[str]) -> None:
        if too_long not in _RULES:
            raise UserError(f"too_long is {', '.join(_RULES)}, not {too_long!r}")
        self.rule, self.done = _RULES[too_long]
        self.changes = too_long != "refuse"
        self.parts = parts
        self.notes: list[str] = []
        self.held_out: list[tuple[int, str]] = []

    def read(
        self, llm: LLM, parts: Sequence[Part], new: int = 0, whole: Sequence[int] = ()
    ) -> list[list[tuple[int, MultipleChoice]]]:
        """Return the readable rows of each part: their positions in it, and their questions.

        Args:
            llm: the model, loaded.
            parts: all parts of the data.
            new: tokens that the model may generate after a prompt, before the options are scored.
            whole: indices of the options whose last token is read too; of other options it is only scored.

        Raises:
            ValueError: a row is too long, a part has no readable row, or a cut prompt equals another one; the message
                names the row.
        """
        self.notes = []
        use = _Use(new, tuple(whole))
        readable = [self._part(llm, f"{name} row", part, use) for name, part in zip(self.parts, parts, strict=True)]
        prompts = [{question.prompt for _, question in part} for part in readable]
        for number, (part, rows) in enumerate(zip(parts, readable, strict=True)):
            _check_distinct([(part[index], question) for index, question in rows])
            elsewhere = set().union(*prompts[:number], *prompts[number + 1 :])
            for index, question in rows:
                if question.prompt in elsewhere and question.prompt != part[index][1].prompt:
                    raise UserError(
                        f"row {part[index][0]}: what can be read of its prompt, {question.prompt[-40:]!r}, is a prompt "
                        "of another part too, so the held-out rows would not be new: use too_long skip"
                    )
        self.held_out = [(index, parts[-1][index][0]) for index, _ in readable[-1]]
        return readable

    def reference_texts(self, llm: LLM, texts: Sequence[str]) -> list[str]:
        """Return the reference texts, cut or skipped by the same rule; raises ValueError for one that is too long."""
        part = [(f"{number} of the reference texts", MultipleChoice(text)) for number, text in enumerate(texts, 1)]
        return [question.prompt for _, question in self._part(llm, "reference text", part, _Use())]

    def _part(self, llm: LLM, name: str, part: Part, reading: "_Use") -> list[tuple[int, MultipleChoice]]:
        rows: list[tuple[int, MultipleChoice]] = []
        count = 0
        for index, (number, question) in enumerate(_with_room(llm, part, reading)):
            readable: MultipleChoice | None = question
            if isinstance(number, str):
                try:
                    problem = _length_error(llm, question, reading)
                    if problem is not None:
                        count += 1
                        readable = self.rule(llm, question, reading, problem)
                except ValueError as error:
                    raise UserError(f"{name.split(' ')[-1]} {number}: {error}") from error
            if readable is not None:
                rows.append((index, readable))
        if count:
            self.notes.append(f"{count:,} of {len(part):,} {name}s {self.done}: longer than {llm.longest:,} tokens")
            rank_zero_only(say)(f"{self.notes[-1]}.")
        if part and not rows:
            raise UserError(
                f"all {len(part)} {name}s are longer than the {llm.longest} tokens that {llm.name} reads: bring "
                "shorter ones, or take a model that reads more"
            )
        return rows


def _check_distinct(rows: Iterable[tuple[tuple[str, MultipleChoice], MultipleChoice]]) -> None:
    """Raise ValueError if different prompts of one part become equal when cut: they would count as two rows."""
    first_rows: dict[str, tuple[str, str]] = {}
    for (name, question), cut in rows:
        first, prompt = first_rows.setdefault(cut.prompt, (name, question.prompt))
        if prompt != question.prompt:
            raise UserError(
                f"rows {first} and {name}: what can be read of their prompts is the same, {cut.prompt[-40:]!r}, so "
                "they would count as two rows and be one: use too_long skip"
            )


class _Use(NamedTuple):
    """What a run does with a question besides scoring its options."""

    new: int = 0
    whole: tuple[int, ...] = ()


def _with_room(llm: LLM, part: Part, reading: _Use) -> list[tuple[str | None, MultipleChoice]]:
    """Return the rows; those that surely fit, by an upper bound from one tokenizer call, lose their name."""
    if not part:
        return []
    options = list(dict.fromkeys(option for _, question in part for option in question.choices)) or [""]
    sizes = map(len, llm.tokenizer(options, add_special_tokens=False)["input_ids"])
    size = dict(zip(options, sizes, strict=True))
    texts = [llm.prompt(question.prompt) for _, question in part]
    encoded = llm.tokenizer(texts, add_special_tokens=not llm.chat)["input_ids"]
    rows: list[tuple[str | None, MultipleChoice]] = []
    for (name, question), ids in zip(part, encoded, strict=True):
        room = max((size[option] for option in question.choices), default=0) + reading.new + 2
        rows.append((name if not ids or len(ids) + room > llm.longest else None, question))
    return rows


def _length_error(llm: LLM, question: MultipleChoice, reading: _Use) -> TooLongError | None:
    """Return the error of the first pass for which this question is too long, or None."""
    try:
        rows = llm.rows([question])
        if reading.new:
            llm.prompts([question.prompt], reading.new)
            tokens = Counter((row.prompt, option) for row in rows for _, _, option in row.reads)
            longest = max(prompt + count - 1 for (prompt, _), count in tokens.items())
            written = reading.new - min(tokens.values())  # before the label, which is one of the options
            llm.check_length(longest + max(written, 0), question.prompt)
        llm.texts([MultipleChoice(question.prompt, (question.choices[i],)) for i in reading.whole])
    except TooLongError as error:
        return error
    return None


def _refuse(_llm: LLM, _question: MultipleChoice, _reading: _Use, problem: TooLongError) -> MultipleChoice | None:
    raise problem


def _skip(_llm: LLM, _question: MultipleChoice, _reading: _Use, _problem: TooLongError) -> MultipleChoice | None:
    return None


def _truncate_left(llm: LLM, question: MultipleChoice, reading: _Use, problem: TooLongError) -> MultipleChoice | None:
    """Cut the prompt to its longest readable end, starting at a word if possible."""
    prompt = question.prompt

    def fits(start: int) -> bool:
        return _length_error(llm, question._replace(prompt=prompt[start:]), reading) is None

    words = [match.start() for match in re.finditer(r"(?<=\s)\S", prompt)]
    for starts in (words, range(1, len(prompt))):
        first = bisect_left(starts, True, key=fits)
        if first < len(starts):
            return question._replace(prompt=prompt[starts[first] :])
    raise UserError(f"{problem}; nothing of the prompt would be left before the longest option: use too_long skip")


_RULES: dict[str, tuple[Callable[[LLM, MultipleChoice, _Use, TooLongError], MultipleChoice | None], str]] = {
    "refuse": (_refuse, "refused"),
    "skip": (_skip, "skipped"),
    "truncate_left": (_truncate_left, "read without the beginning of their prompt"),
}


def check_pairs(llm: LLM, rows: Iterable[tuple[str, MultipleChoice]], first: int, second: int) -> None:
    """Raise ValueError for rows without tokens, or whose two compared options have the same tokens.

    Args:
        llm: the model, loaded.
        rows: every row's name, for messages, with its question.
        first: index of one of the two compared options.
        second: index of the other.

    Raises:
        ValueError: there is such a row; the message names the first.
    """
    for name, question in rows:
        try:
            token_rows = [llm.rows([MultipleChoice(question.prompt, (option,))])[0] for option in question.choices]
        except ValueError as error:
            raise UserError(f"row {name}: {error}") from error
        first_ids, second_ids = ([*token_rows[i].ids, token_rows[i].reads[-1][1]] for i in (first, second))
        if first_ids == second_ids:
            raise UserError(
                f"row {name}: {llm.name} reads {question.choices[first]!r} and {question.choices[second]!r} as the "
                f"same tokens after {question.prompt[-40:]!r}, so they cannot be told apart: write one otherwise, or "
                "leave the row out"
            )
