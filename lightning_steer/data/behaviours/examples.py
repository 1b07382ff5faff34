"""Behaviour examples from their four usual files: a prompt, a continuation that shows the behaviour, one that does not.

Texts have no surrounding blanks; one blank, or a chat template, stands between prompt and continuation. Sources:
Pres et al. 2024, arXiv 2410.17245 (halves); Rimsky et al. 2024, arXiv 2312.06681 (choices); Perez et al. 2022,
arXiv 2212.09251 (personas).
"""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from lightning_steer import pair_texts, text_files
from lightning_steer.data import table_files
from lightning_steer.errors import UserError

POSITIVE, NEGATIVE = "answer_matching_behavior", "answer_not_matching_behavior"
PAIR = ("positive", "negative")
"""Columns that a pair must have."""


class BehaviourExample(NamedTuple):
    """A prompt and its two continuations."""

    id: str
    """The file's id, or the example's number in it, counted from 1; unique within a file."""
    behaviour: str
    prompt: str
    positive: str
    """Shows the behaviour."""
    negative: str
    """Does not show it."""

    @property
    def origin(self) -> str:
        """Return what examples that are not independent share; see :func:`.pair_texts.origin`."""
        return pair_texts.origin(self.prompt, self.positive, self.negative)

    @property
    def continuations(self) -> frozenset[str]:
        """Return both continuations, whichever of them shows the behaviour."""
        return frozenset((self.positive, self.negative))


def read_pairs(path: str | Path) -> list[BehaviourExample]:
    """Read JSON lines of ``{prompt, positive, negative}``, or a CSV file with these columns in its first line.

    ``prompt`` (else none), ``behaviour`` (else the file name) and ``id`` may lack.
    """
    path, examples = Path(path), []
    for number, row in _rows(path, PAIR, ("behaviour", "id", "prompt"), behaviour=path.stem, prompt=""):
        texts = (row["behaviour"], row["prompt"], row["positive"], row["negative"])
        examples.append(_example(path, str(row.get("id", number)), *texts))
    return _distinct(path, examples)


def read_halves(
    path: str | Path,
    behaviour: str,
    first_half_positive: bool,
    begin: str = "[INST]",
    separator: str = "[/INST]",
) -> list[BehaviourExample]:
    """Read a released file: ``{"question": "[INST] prompt [/INST] continuation"}``, one polarity after the other.

    Such a file does not say which half shows the behaviour. In the released ones, the first half of
    hallucination.json is truthful, of myopia.json far-sighted, of corrigible.json not corrigible.

    Args:
        path: the file; both halves have the same prompts in the same order.
        behaviour: its name.
        first_half_positive: whether the first half shows the behaviour.
        begin: what stands before the prompt.
        separator: what stands between prompt and continuation, once.
    """
    path, pairs = Path(path), []
    for number, row in _rows(path, ("question",)):
        text = row["question"].strip()
        if not text.startswith(begin) or text.count(separator) != 1:
            raise UserError(
                f"{path}, example {number}: expected {begin!r} at the start and {separator!r} once, not "
                f"{text.count(separator)} times: {text[:80]!r}"
            )
        prompt, continuation = (side.strip() for side in text.removeprefix(begin).split(separator))
        if not prompt or not continuation:
            raise UserError(f"{path}, example {number} has an empty {'continuation' if prompt else 'prompt'}: {text!r}")
        pairs.append((prompt, continuation))
    half = len(pairs) // 2
    if len(pairs) % 2:
        raise UserError(f"{path} has halves of unequal length: {len(pairs)} examples cannot be paired")
    examples = []
    for number, (first, second) in enumerate(zip(pairs[:half], pairs[half:], strict=True), 1):
        if first[0] != second[0]:
            raise UserError(
                f"{path}: the halves do not match, example {number} asks {first[0]!r} and example {number + half} asks "
                f"{second[0]!r}"
            )
        positive, negative = (first, second) if first_half_positive else (second, first)
        examples.append(_example(path, str(number), behaviour, first[0], positive[1], negative[1]))
    return _distinct(path, examples)


def read_choices(path: str | Path, behaviour: str) -> list[BehaviourExample]:
    """Read CAA's A/B file: a question that ends in its options, and which of "(A)", "(B)" matches the behaviour."""
    path, examples = Path(path), []
    for number, row in _rows(path, ("question", POSITIVE, NEGATIVE)):
        for answer in (row[POSITIVE], row[NEGATIVE]):
            if answer.strip() not in row["question"]:
                raise UserError(f"{path}, example {number}: {answer.strip()!r} is no option of the question")
        examples.append(_example(path, str(number), behaviour, row["question"], row[POSITIVE], row[NEGATIVE]))
    return _distinct(path, examples)


def read_personas(path: str | Path, behaviour: str) -> list[BehaviourExample]:
    """Read Anthropic's persona file: a statement, and which of "Yes", "No" matches the behaviour."""
    path, examples = Path(path), []
    for number, row in _rows(path, ("question", "statement", POSITIVE, NEGATIVE), ("label_confidence",)):
        if row["statement"].strip() not in row["question"]:
            raise UserError(f"{path}, example {number}: the question does not hold its statement {row['statement']!r}")
        examples.append(_example(path, str(number), behaviour, row["question"], row[POSITIVE], row[NEGATIVE]))
    return _distinct(path, examples)


def of_pairs(behaviour: str, pairs: Iterable[tuple[str, str, str]]) -> list[BehaviourExample]:
    """Return (prompt, positive, negative) tuples as examples, numbered from 1; raises ValueError or TypeError."""
    examples = []
    for number, pair in enumerate(pairs, 1):
        if isinstance(pair, str) or len(pair) != 3 or not all(isinstance(text, str) for text in pair):
            raise TypeError(f"pair {number} is {str(pair)[:80]}, not a prompt, a positive and a negative text")
        if not all(text.strip() for text in pair[1:]):
            raise UserError(f"pair {number} has an empty continuation: {pair}")
        examples.append(_example("pairs", str(number), behaviour, *pair))
    return _distinct("pairs", examples)


def objects(path: Path) -> list[tuple[int, Any]]:
    """Read a JSON list, JSON lines or a CSV file, numbered from 1; raises FileNotFoundError or ValueError."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of behaviour examples {path}")
    if path.suffix == ".csv":
        return list(enumerate(table_files.read_rows(path), 1))
    rows = []
    try:
        text = text_files.read(path)
        if text.lstrip().startswith("["):
            rows = text_files.parse_json(text)
        else:  # not splitlines: JSON strings may hold other line ends than \n
            for line in filter(str.strip, text.split("\n")):
                rows.append(text_files.parse_json(line))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON at example {len(rows) + 1}: {error}") from None
    if not rows:
        raise UserError(f"{path} is empty: there are no examples in it")
    return list(enumerate(rows, 1))


def _rows(
    path: Path, columns: Collection[str], optional: Collection[str] = (), **defaults: str
) -> list[tuple[int, dict[str, Any]]]:
    """Read a file's objects, numbered from 1, and check their text columns; ``defaults`` fill missing ones."""
    rows = []
    for number, record in objects(path):
        if not isinstance(record, dict):
            raise UserError(f"{path}, example {number}: expected an object with {', '.join(columns)}, not {record!r}")
        row = {**defaults, **record}
        rows.append((number, row))
        missing, unknown = set(columns) - set(row), set(row) - set(columns) - set(optional)
        if missing or unknown:
            raise UserError(
                f"{path}, example {row.get('id', number)}: expected the columns {', '.join(columns)}"
                f"{f' (optional: {chr(44).join(optional)})' if optional else ''}; "
                f"missing: {', '.join(sorted(missing)) or 'none'}, unknown: {', '.join(sorted(unknown)) or 'none'}"
            )
        for column in (*columns, *defaults):
            if not isinstance(row[column], str) or not (row[column].strip() or column in optional):
                raise UserError(f"{path}, example {row.get('id', number)}: its {column} is empty or no text")
    return rows


def _example(path: object, id_: str, behaviour: str, prompt: str, positive: str, negative: str) -> BehaviourExample:
    example = BehaviourExample(id_, *(text.strip() for text in (behaviour, prompt, positive, negative)))
    if example.positive == example.negative:
        raise UserError(f"{path}, example {id_} has the same continuation twice: {example.positive!r}")
    return example


def _distinct(path: object, examples: list[BehaviourExample]) -> list[BehaviourExample]:
    """Return the examples; raise ValueError for duplicate ids, duplicate contents, or a pair and its reverse."""
    ids, earlier = set(), {}
    for example in examples:
        if example.id in ids:
            raise UserError(f"{path}: id {example.id} occurs twice")
        if example[1:] in earlier:
            raise UserError(f"{path}: example {example.id} repeats example {earlier[example[1:]]}")
        swapped = example._replace(positive=example.negative, negative=example.positive)[1:]
        if swapped in earlier:
            raise UserError(
                f"{path}: example {example.id} is example {earlier[swapped]} with its two sides exchanged: they would "
                "cancel each other"
            )
        ids.add(example.id)
        earlier[example[1:]] = example.id
    return examples
