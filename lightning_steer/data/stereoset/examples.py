"""Read and check StereoSet's examples, from the official dev.json or the hub's McGill-NLP/stereoset.

An example has three sentences about a target term. Intersentence: each continues a context; intrasentence: each is the
context with its BLANK filled in. Source: Nadeem et al. 2021, arXiv 2004.09456.
"""

import bisect
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from lightning_steer import text_files
from lightning_steer.data.pair_batches import rank
from lightning_steer.errors import UserError

INTERSENTENCE, INTRASENTENCE = "intersentence", "intrasentence"
BIAS_TYPES = ("gender", "profession", "race", "religion")
LABELS = ("anti-stereotype", "stereotype", "unrelated")  # in the order of the hub's numbers


class StereoSetExample(NamedTuple):
    """One example; triples and scores are in the order stereotype, anti-stereotype, unrelated."""

    id: str
    task: str
    """``intersentence`` or ``intrasentence``."""
    bias_type: str
    target: str
    """The target term, as it is written in the file."""
    context: str
    """The text before the sentences, or (intrasentence) the sentence with BLANK in it."""
    stereotype: str
    anti_stereotype: str
    unrelated: str
    sentence_ids: tuple[str, ...]
    """Ids that prediction files use for the sentences."""
    blanks: tuple[str, ...] | None
    """Texts that replace BLANK (intrasentence only)."""

    @property
    def sentences(self) -> tuple[str, str, str]:
        """Return the three sentences."""
        return self.stereotype, self.anti_stereotype, self.unrelated


def read_official(path: str | Path, bias_types: Sequence[str] = BIAS_TYPES) -> list[StereoSetExample]:
    """Read all examples of a file in the schema of the official dev.json, intersentence and intrasentence.

    Raises FileNotFoundError, or ValueError naming the first invalid example.

    Args:
        path: the file.
        bias_types: the bias types that may occur.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no StereoSet file {path}: give the path of dev.json")
    text = text_files.read(path)
    try:
        tasks = text_files.parse_json(text)["data"]
        groups = {task: list(tasks[task]) for task in (INTERSENTENCE, INTRASENTENCE) if task in tasks}
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    except (KeyError, TypeError):
        groups = {}
    if not any(groups.values()):
        raise UserError(f'{path} holds no examples: expected {{"data": {{"{INTERSENTENCE}": [...]}}}} as in dev.json')
    return _distinct([_example(row, task, bias_types, i) for task in groups for i, row in enumerate(groups[task])])


def of_hub_rows(
    rows: Iterable[Mapping[str, Any]], task: str, bias_types: Sequence[str] = BIAS_TYPES
) -> list[StereoSetExample]:
    """Return examples from rows of the hub's data set, where ``sentences`` are columns and gold labels are numbers.

    Args:
        rows: one configuration of the set.
        task: which one: ``intersentence`` or ``intrasentence``.
        bias_types: the bias types that may occur.
    """
    if task not in (INTERSENTENCE, INTRASENTENCE):
        raise UserError(f"a task of StereoSet is {INTERSENTENCE} or {INTRASENTENCE}, not {task!r}")
    return _distinct([_example(row, task, bias_types, i) for i, row in enumerate(rows)])


def sample(examples: Sequence[StereoSetExample], per_type: int, seed: int = 0) -> list[StereoSetExample]:
    """Return ``per_type`` examples of every bias type that occurs, in the order of ``examples``.

    The sample depends only on the seed and the ids; a larger sample contains the smaller one.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for example in examples:
        groups[example.bias_type].append(example.id)
    for bias_type, ids in groups.items():
        if not 1 <= per_type <= len(ids):
            raise UserError(f"bias type {bias_type} has {len(ids)} examples: {per_type} per type cannot be drawn")
    sampled_ids = {id_ for ids in groups.values() for id_ in sorted(ids, key=lambda id_: rank(seed, id_))[:per_type]}
    return [example for example in examples if example.id in sampled_ids]


def split_by_term(
    examples: Sequence[StereoSetExample], shares: Sequence[float] = (0.5, 0.5), seed: int = 0
) -> list[list[StereoSetExample]]:
    """Split into parts without common target terms, each with its share of every bias type's terms, at least one.

    Terms that differ only in case or outer spaces are one term; a term of several bias types counts for its first one.
    A term's part depends on the seed and on the terms of its bias type, not on the order of the examples.

    Args:
        examples: the examples; each part keeps their order.
        shares: one for each part, adding up to 1.
        seed: orders the terms.
    """
    if not shares or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9:
        raise UserError(f"shares are above 0 and add up to 1, not {list(shares)}")
    groups: dict[str, list[str]] = defaultdict(list)
    for term, bias_type in {term_of(example): example.bias_type for example in reversed(examples)}.items():
        groups[bias_type].append(term)
    part_of: dict[str, int] = {}
    for bias_type, terms in groups.items():
        if len(terms) < len(shares):
            raise UserError(
                f"bias type {bias_type} has {len(terms)} target terms, too few for {len(shares)} parts that have none "
                "in common: leave it out or take more examples"
            )
        ends, end = [], 0
        for i in range(len(shares)):  # at least one term here, and one for each part to come
            end = min(max(round(sum(shares[: i + 1]) * len(terms)), end + 1), len(terms) - len(shares) + i + 1)
            ends.append(end)
        terms.sort(key=lambda term: rank(seed, term))
        part_of |= {term: bisect.bisect(ends, position) for position, term in enumerate(terms)}
    return [[example for example in examples if part_of[term_of(example)] == i] for i in range(len(shares))]


def term_of(example: StereoSetExample) -> str:
    """Return the target term, however it is written."""
    return example.target.strip().casefold()


def _example(row: Any, task: str, bias_types: Sequence[str], position: int) -> StereoSetExample:
    if not isinstance(row, Mapping) or not row.get("id"):
        raise UserError(f"{task} example at position {position} has no id")
    name = f"{task} example {row['id']}"
    fields = ("bias_type", "target", "context")
    for field in fields:
        if not isinstance(row.get(field), str) or not row[field].strip():
            raise UserError(f"{name} has no {field}")
    if row["bias_type"] not in bias_types:
        raise UserError(f"{name} has the unknown bias type {row['bias_type']!r}; known are {', '.join(bias_types)}")
    by_label = _sentences(row.get("sentences"), name)
    texts, ids = zip(*(by_label[label] for label in ("stereotype", "anti-stereotype", "unrelated")), strict=True)
    if len(set(texts)) < len(texts):
        raise UserError(f"{name} has the same sentence twice: {max(texts, key=texts.count)!r}")
    blanks = tuple(_blank(row["context"], text, name) for text in texts) if task == INTRASENTENCE else None
    return StereoSetExample._make((str(row["id"]), task, *map(row.get, fields), *texts, ids, blanks))


def _sentences(rows: Any, name: str) -> dict[str, tuple[str, str]]:
    """Return text and id of each gold label's sentence, from a list of sentences or from the hub's columns."""
    keys = ("sentence", "id", "gold_label")
    if isinstance(rows, Mapping):
        rows = [dict(zip(keys, cells, strict=True)) for cells in zip_longest(*(rows.get(key) or [] for key in keys))]
    if not isinstance(rows, Sequence) or len(rows) != len(LABELS):
        raise UserError(f"{name} needs three sentences, each with sentence, id and gold_label")
    by_label: dict[str, tuple[str, str]] = {}
    for text, id_, gold_label in ([sentence.get(key) for key in keys] for sentence in rows):
        label = dict(enumerate(LABELS)).get(gold_label, gold_label)
        if label not in LABELS:
            raise UserError(f"{name}: the gold label of {text!r} is {gold_label!r}, not one of {', '.join(LABELS)}")
        if label in by_label:
            raise UserError(f"{name} has two sentences with gold label {label}")
        if not isinstance(text, str) or not text.strip() or not id_:
            raise UserError(f"{name}: its {label} sentence is empty or has no id: {text!r}, {id_!r}")
        by_label[label] = text, str(id_)
    return by_label


def _blank(context: str, sentence: str, name: str) -> str:
    """Return the text of ``sentence`` at the BLANK of ``context``; a third of them differ in case elsewhere."""
    before, *after = (re.escape(part) for part in context.split("BLANK"))
    same_word = r"\1"  # several blanks hold the same word
    match = after and re.fullmatch(f"{before}(.+?){same_word.join(after)}", sentence, re.IGNORECASE | re.DOTALL)
    if not match:
        raise UserError(f"{name}: {sentence!r} must be the context {context!r} with its BLANK filled in")
    return match[1]


def _distinct(examples: list[StereoSetExample]) -> list[StereoSetExample]:
    known_ids: set[str] = set()
    for example in examples:
        for id_ in (f"id {example.id}", *(f"sentence id {id_}" for id_ in example.sentence_ids)):
            if id_ in known_ids:
                raise UserError(f"{example.task} example {example.id}: {id_} occurs twice")
            known_ids.add(id_)
    return examples
