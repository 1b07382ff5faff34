"""StereoSet's examples: from the official dev.json, or rows of the hub's McGill-NLP/stereoset, to checked records.

An example has three sentences about a target term. Intersentence: each continues a context; intrasentence: each is the
context with its BLANK filled in. Source: Nadeem et al. 2021, arXiv 2004.09456.
"""

import bisect
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from lightning_steer import text_files

INTERSENTENCE, INTRASENTENCE = "intersentence", "intrasentence"
BIAS_TYPES = ("gender", "profession", "race", "religion")
LABELS = ("anti-stereotype", "stereotype", "unrelated")  # in the order of the hub's numbers


class StereoSetExample(NamedTuple):
    """One example; triples are in the order stereotype, anti-stereotype, unrelated, as scores are."""

    id: str
    task: str
    """``intersentence`` or ``intrasentence``."""
    bias_type: str
    target: str
    """The target term, as it is written in the file."""
    context: str
    """What the sentences follow, or (intrasentence) the sentence with BLANK in it."""
    stereotype: str
    anti_stereotype: str
    unrelated: str
    sentence_ids: tuple[str, ...]
    """By which files of predictions name the sentences."""
    blanks: tuple[str, ...] | None
    """What stands in place of BLANK (intrasentence only)."""

    @property
    def sentences(self) -> tuple[str, str, str]:
        """The three sentences."""
        return self.stereotype, self.anti_stereotype, self.unrelated


def read_official(path: str | Path, bias_types: Sequence[str] = BIAS_TYPES) -> list[StereoSetExample]:
    """All examples of a file in the schema of the official dev.json, intersentence and intrasentence.

    Raises FileNotFoundError, or ValueError for the first thing that is wrong, naming the example.

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
        raise ValueError(f"{path} is not JSON: {error}") from None
    except (KeyError, TypeError):
        groups = {}
    if not any(groups.values()):
        raise ValueError(f'{path} holds no examples: expected {{"data": {{"{INTERSENTENCE}": [...]}}}} as in dev.json')
    return _distinct([_example(row, task, bias_types, i) for task in groups for i, row in enumerate(groups[task])])


def of_hub_rows(
    rows: Iterable[Mapping[str, Any]], task: str, bias_types: Sequence[str] = BIAS_TYPES
) -> list[StereoSetExample]:
    """Examples from rows of the hub's set, whose ``sentences`` are columns and whose gold labels are numbers.

    Args:
        rows: one configuration of the set.
        task: which one: ``intersentence`` or ``intrasentence``.
        bias_types: the bias types that may occur.
    """
    if task not in (INTERSENTENCE, INTRASENTENCE):
        raise ValueError(f"a task of StereoSet is {INTERSENTENCE} or {INTRASENTENCE}, not {task!r}")
    return _distinct([_example(row, task, bias_types, i) for i, row in enumerate(rows)])


def sample(examples: Sequence[StereoSetExample], per_type: int, seed: int = 0) -> list[StereoSetExample]:
    """``per_type`` examples of every bias type that occurs, in the order of ``examples``.

    Which ones depends on the seed and their ids only; a larger sample holds the smaller one.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for example in examples:
        groups[example.bias_type].append(example.id)
    for bias_type, ids in groups.items():
        if not 1 <= per_type <= len(ids):
            raise ValueError(f"bias type {bias_type} has {len(ids)} examples: {per_type} per type cannot be drawn")
    chosen = {id_ for ids in groups.values() for id_ in sorted(ids, key=lambda id_: _rank(seed, id_))[:per_type]}
    return [example for example in examples if example.id in chosen]


def split_by_term(
    examples: Sequence[StereoSetExample], shares: Sequence[float] = (0.5, 0.5), seed: int = 0
) -> list[list[StereoSetExample]]:
    """Parts without a target term in common, each with about its share of every bias type's terms, and at least one.

    Terms that differ in case or outer spaces only are one term; one of several bias types goes where its first puts
    it. Where a term goes depends on the seed and on the terms of its bias type, not on the order of the examples.

    Args:
        examples: what is split; each part keeps their order.
        shares: one for each part, adding up to 1.
        seed: orders the terms.
    """
    if not shares or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9:
        raise ValueError(f"shares are above 0 and add up to 1, not {list(shares)}")
    groups: dict[str, list[str]] = defaultdict(list)
    for term, bias_type in {_term(example): example.bias_type for example in reversed(examples)}.items():
        groups[bias_type].append(term)
    part: dict[str, int] = {}
    for bias_type, terms in groups.items():
        if len(terms) < len(shares):
            raise ValueError(
                f"bias type {bias_type} has {len(terms)} target terms, too few for {len(shares)} parts that have none "
                "in common: leave it out or take more examples"
            )
        ends, last = [], 0
        for i in range(len(shares)):  # at least one term here, and one for each part to come
            last = min(max(round(sum(shares[: i + 1]) * len(terms)), last + 1), len(terms) - len(shares) + i + 1)
            ends.append(last)
        terms.sort(key=lambda term: _rank(seed, term))
        part |= {term: bisect.bisect(ends, place) for place, term in enumerate(terms)}
    return [[example for example in examples if part[_term(example)] == i] for i in range(len(shares))]


def _term(example: StereoSetExample) -> str:
    return example.target.strip().casefold()


def _rank(seed: int, name: str) -> bytes:
    """A place in an order that is random and yet the same everywhere, whatever else is ordered."""
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()


def _example(row: Any, task: str, bias_types: Sequence[str], position: int) -> StereoSetExample:
    if not isinstance(row, Mapping) or not row.get("id"):
        raise ValueError(f"{task} example at position {position} has no id")
    name = f"{task} example {row['id']}"
    fields = ("bias_type", "target", "context")
    for field in fields:
        if not isinstance(row.get(field), str) or not row[field].strip():
            raise ValueError(f"{name} has no {field}")
    if row["bias_type"] not in bias_types:
        raise ValueError(f"{name} has the unknown bias type {row['bias_type']!r}; known are {', '.join(bias_types)}")
    by_label = _sentences(row.get("sentences"), name)
    texts, ids = zip(*(by_label[label] for label in ("stereotype", "anti-stereotype", "unrelated")), strict=True)
    if len(set(texts)) < len(texts):
        raise ValueError(f"{name} has the same sentence twice: {max(texts, key=texts.count)!r}")
    blanks = tuple(_blank(row["context"], text, name) for text in texts) if task == INTRASENTENCE else None
    return StereoSetExample._make((str(row["id"]), task, *map(row.get, fields), *texts, ids, blanks))


def _sentences(given: Any, name: str) -> dict[str, tuple[str, str]]:
    """Text and id of each gold label's sentence, from a list of sentences or, as the hub has them, their columns."""
    keys = ("sentence", "id", "gold_label")
    if isinstance(given, Mapping):
        given = [dict(zip(keys, cells, strict=True)) for cells in zip_longest(*(given.get(key) or [] for key in keys))]
    if not isinstance(given, Sequence) or len(given) != len(LABELS):
        raise ValueError(f"{name} needs three sentences, each with sentence, id and gold_label")
    found: dict[str, tuple[str, str]] = {}
    for text, id_, gold in ([sentence.get(key) for key in keys] for sentence in given):
        label = dict(enumerate(LABELS)).get(gold, gold)
        if label not in LABELS:
            raise ValueError(f"{name}: the gold label of {text!r} is {gold!r}, not one of {', '.join(LABELS)}")
        if label in found:
            raise ValueError(f"{name} has two sentences with gold label {label}")
        if not isinstance(text, str) or not text.strip() or not id_:
            raise ValueError(f"{name}: its {label} sentence is empty or has no id: {text!r}, {id_!r}")
        found[label] = text, str(id_)
    return found


def _blank(context: str, sentence: str, name: str) -> str:
    """What stands in ``sentence`` where ``context`` has BLANK; in a third of them the case of the rest differs."""
    before, *rest = (re.escape(part) for part in context.split("BLANK"))
    again = r"\1"  # several blanks hold the same word
    match = rest and re.fullmatch(f"{before}(.+?){again.join(rest)}", sentence, re.IGNORECASE | re.DOTALL)
    if not match:
        raise ValueError(f"{name}: {sentence!r} must be the context {context!r} with its BLANK filled in")
    return match[1]


def _distinct(examples: list[StereoSetExample]) -> list[StereoSetExample]:
    seen: set[str] = set()
    for example in examples:
        for id_ in (f"id {example.id}", *(f"sentence id {id_}" for id_ in example.sentence_ids)):
            if id_ in seen:
                raise ValueError(f"{example.task} example {example.id}: {id_} occurs twice")
            seen.add(id_)
    return examples
