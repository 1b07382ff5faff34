"""Contrast pairs in memory, as the Python interface takes them and as a data module reads them."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lightning_steer import pair_texts
from lightning_steer.data.behaviours import examples as behaviour_examples
from lightning_steer.data.behaviours.examples import BehaviourExample
from lightning_steer.data.behaviours.sources import BehaviourSource
from lightning_steer.errors import UserError
from lightning_steer.resources import resource_path


class ContrastPair(NamedTuple):
    """A prompt with a positive continuation, which shows what is wanted, and a negative one."""

    prompt: str
    """Both continuations follow it, after a blank; empty if they are whole texts."""
    positive: str
    """Shows what is wanted."""
    negative: str
    """Shows its opposite."""


def read_pairs(path: str | Path, negatives: str | Path | None = None) -> list[ContrastPair]:
    """Read contrast pairs from JSON lines of ``{"prompt", "positive", "negative"}``, or a CSV file with these columns.

    Or from two text files, whose lines are paired: the words with which both begin are the prompt.

    Args:
        path: the file; of two, the one of positive texts.
        negatives: the file of negative texts.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is not such a pair; the message names it.
    """
    if negatives is not None:
        return [ContrastPair(*pair) for pair in pair_texts.read_two_texts(path, negatives)]
    return [ContrastPair(pair.prompt, pair.positive, pair.negative) for pair in behaviour_examples.read_pairs(path)]


def read_files(paths: Sequence[str | Path]) -> list[ContrastPair]:
    """Read the one file of pairs, or the two text files, that a command was given; raises ValueError for more."""
    if len(paths) > 2:
        raise UserError(
            f"pairs come from one file, or from two text files (positives, negatives), not from {len(paths)}: "
            f"{', '.join(map(str, paths))}"
        )
    return read_pairs(*(resource_path(str(path)) for path in paths))


class Pairs(BehaviourSource):
    """Contrast pairs in memory as a source of behaviour examples.

    Args:
        pairs: the pairs.
        reference_texts: texts that steering should leave alone.
        name: what the pairs are of, for reports.
    """

    def __init__(
        self, pairs: Iterable[ContrastPair], reference_texts: Sequence[str] = (), name: str = "positive"
    ) -> None:
        if isinstance(pairs, (str, Path)):
            raise TypeError(f"pairs is {str(pairs)!r}, not a list of pairs: read a file with read_pairs")
        self.pairs, self.reference_texts, self.name = list(pairs), list(reference_texts), name

    def read(self) -> list[BehaviourExample]:
        """Return the pairs, numbered from 1; raises ValueError."""
        return behaviour_examples.of_pairs(self.name, self.pairs)

    def own_reference_texts(self) -> list[str]:
        """Return the texts that steering should leave alone."""
        return self.reference_texts
