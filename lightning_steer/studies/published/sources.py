"""The published outcomes: whose they are, what was claimed, how they are scored, and where their tables lie."""

from pathlib import Path
from typing import NamedTuple


class Section(NamedTuple):
    """What the page says of one source."""

    short: str
    """In a sentence or two, for the beginning of the page."""
    lines: list[str]


class Source(NamedTuple):
    """One published result."""

    title: str
    repository: str
    commit: str
    """Of the release that the tables were made from; empty where it is not known."""
    licence: str
    claim: str
    released: str
    """What the tables hold, and how it was scored."""


ALPHASTEER = Source(
    "AlphaSteer",
    "https://github.com/AlphaLab-USTC/AlphaSteer",
    "20d65b6",
    "Apache-2.0",
    "Steering makes a model refuse attacks much more often and leaves its general abilities as they were (abstract of "
    "arXiv 2506.07022).",
    "Answers of Llama-3.1-8B-Instruct at nine strengths, 0 to -.5. Scored by us: a problem of GSM8K is right if the "
    "last boxed number, or else the last number, equals the answer; an attack or a prompt of XSTest counts as refused "
    "if one of eleven phrases of refusal stands in the first 200 characters.",
)
CAA_DYNAMIC = Source(
    "CAA_Dynamic",
    "https://github.com/Jamoxidase/CAA_Dynamic",
    "f2bfb51",
    "MIT",
    "Vectors for seven behaviours steer Llama-2-7b-chat. The report of the repository (on weighted vectors, layers 13 "
    "to 16) calls positive steering dominant in most behaviours and negative steering weak.",
    "Probabilities of the answers A and B for three of the behaviours: 10 items each, 31 layers, 11 multipliers. The "
    "score is the probability of the answer that shows the behaviour, divided by that of both answers.",
)
REFUSAL_DIRECTION = Source(
    "refusal_direction",
    "https://github.com/andyrdt/refusal_direction",
    "9d852fa",
    "Apache-2.0",
    "Refusal is one direction: ablated, a chat model no longer refuses harmful requests; added, it refuses harmless "
    "ones (abstract of arXiv 2406.11717). A rule with a budget of KL selects the direction.",
    "Scores of all candidate directions of two models; verdicts of two judges on the answers to 100 prompts of "
    "JailbreakBench without steering, with ablation and with addition; whether 100 harmless prompts are refused; "
    "cross-entropy on three texts.",
)
CAA = Source(
    "CAA",
    "https://github.com/nrimsky/CAA",
    "",
    "MIT",
    "Contrastive activation addition shifts seven behaviours of Llama 2 in both directions (abstract of arXiv "
    "2312.06681).",
    "The repository holds the probabilities of the answers A and B item by item. The table that is judged here holds "
    "means only: the probability of the matching answer of Llama-2-7b-chat, divided by that of both answers, layer 13, "
    "at up to five multipliers, 50 items each.",
)


def folder(data: Path) -> Path:
    """Return the folder that holds the tables: ``data/outcomes``, or ``data`` itself.

    Raises:
        FileNotFoundError: neither is a folder.
    """
    inner = data / "outcomes"
    if inner.is_dir():
        return inner
    if not data.is_dir():
        raise FileNotFoundError(f"there is no folder {data}: give the folder that holds the tables of outcomes")
    return data


def table(outcomes: Path, name: str) -> Path:
    """Return the path of a table; raises FileNotFoundError if it is not there."""
    path = outcomes / name
    if not path.is_file():
        raise FileNotFoundError(f"{outcomes} has no table {name}: docs/published.md names the tables that are read")
    return path


def head(source: Source) -> list[str]:
    """Return the beginning of a source's section: what was claimed, and what was released."""
    commit = f" at {source.commit}" if source.commit else ", commit not recorded"
    return [
        f"## {source.title}",
        "",
        f"Source: [{source.repository.removeprefix('https://github.com/')}]({source.repository}){commit}, "
        f"{source.licence}.",
        "",
        f"**Claimed.** {source.claim}",
        "",
        f"**Released.** {source.released}",
        "",
    ]
