"""Describe a user's mistake in one sentence: value, expectation, remedy.

A :class:`UserError` is such a sentence already, and so is an error of the system that names a path; every other error
is a bug of ours and keeps its traceback. The parser's nested reports are cut down to the line that matters.
"""

import difflib
import re
import sys
import traceback

from lightning_steer.errors import UserError

RENAMED = {"scope": "positions", "read": "read_positions", "per": "normalize", "neutral_file": "reference_texts"}
"""Options of version 0.1 under another name now."""
LOST = re.compile(
    r"(gloo|nccl|c10d|tcpstore).*(connection (closed|reset|refused)|broken pipe|timed? ?out|remote process)",
    re.I | re.S,
)
"""What the backends of torch.distributed say when another process is no longer there."""


def of_exception(error: BaseException) -> str | None:
    """Return the sentence for the user, or None if the user did not cause the error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, RuntimeError) and LOST.search(str(cause)):
            return (
                "another process of this run was lost, so that it cannot go on: see what that one wrote last, then "
                "give the same command again; a fit goes on from unfinished.ckpt, a cache from its finished shards "
                f"({' '.join(str(cause).split())[:200]})"
            )
        if isinstance(cause, (UserError, *_speaking())) or _refused_by_trainer(cause):
            return " ".join(str(cause).split())
        cause = cause.__cause__ or cause.__context__
    return None


def _speaking() -> tuple[type[Exception], ...]:
    """Errors of libraries that already name what is wrong: a path, a trainer option."""
    lightning = sys.modules.get("lightning.fabric.utilities.exceptions")  # not imported for commands without it
    return (OSError,) if lightning is None else (OSError, lightning.MisconfigurationException)


def _refused_by_trainer(error: BaseException) -> bool:
    """Tell whether Lightning refused one of the Trainer's options: it raises plain ValueErrors for some of them."""
    frames = traceback.extract_tb(error.__traceback__)
    raised_in = frames[-1].filename if frames else ""
    return isinstance(error, ValueError) and ("connectors" in raised_in or raised_in.endswith("fit_loop.py"))


def of_parser(message: str, classes: dict[str, list[str]], options: list[str]) -> str:
    """Return the relevant sentence of a jsonargparse error.

    Args:
        message: what the parser complains of, over many lines.
        classes: known class names by the key that takes them (``method``, ``data`` ...).
        options: every known option, for "did you mean".
    """
    unknown = re.search(r"Expected a dot import path string: (\S+)", message)
    if unknown:
        key = _keys(message)[-1] if _keys(message) else ""
        known = classes.get(key, [name for names in classes.values() for name in names])
        similar = difflib.get_close_matches(unknown[1].rpartition(".")[2], known, n=2)
        meant = f" did you mean {' or '.join(similar)}?" if similar else ""
        return f"{key}: {unknown[1]!r} is not a known class;{meant} known are {', '.join(sorted(set(known)))}"
    misspelt = re.search(r"(?:Option|option) '([^']+)'|unrecognized arguments: (\S+)", message)
    if misspelt:
        name = (misspelt[1] or misspelt[2]).lstrip("-").split("=")[0]
        if name.split(".")[-1] in RENAMED:
            return f"there is no option {name!r} since version 0.2: it is called {RENAMED[name.split('.')[-1]]!r} now"
        similar = difflib.get_close_matches(name.split(".")[-1], options, n=3, cutoff=0.6)
        return f"there is no option {name!r}; " + (f"did you mean {' or '.join(similar)}?" if similar else "see --help")
    required = re.search(r"arguments are required: (.*)", message)
    if required and "method" in re.split(r"[, ]+", required[1]):
        return (
            "no method was named: add one of the files in configs/methods, for example "
            "--config configs/methods/mean_difference.yaml"
        )
    lines = [line.strip(" -") for line in message.split("\n")]
    noise = re.compile(
        r"$|Parser key|Does not validate|Subtypes|Errors|Given|Problem with|Expected a <class 'NoneType'>"
    )
    details = [line for line in lines if not noise.match(line)] or lines
    types = re.search(r"Subtypes: \[(.*)\]\n", message)
    value = re.search(r"Given value: (.*)", message)
    if types and value and all(re.match(r"Expected an? (<class|\w+)", line) or line in lines[:1] for line in details):
        expected = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", types[1]).replace("NoneType", "null")
        shown = "null" if value[1].strip() == "None" else value[1].strip()
        return f"{_keys(message)[-1]}: expected {expected.replace(', ', ' or ')}, not {shown}"
    simple = re.search(r"^Expected an? <class '(?:\w+\.)*(\w+)'>. Got value: (.*)", " ".join(details))
    if simple:
        quotes = "; as a text it needs quotes" if simple[1] == "str" else ""
        return ": ".join([*_keys(message)[-1:], f"expected {simple[1]}, not {simple[2]}{quotes}"])
    return ": ".join([*_keys(message)[-1:], " ".join(details)])


def _keys(message: str) -> list[str]:
    return re.findall(r'Parser key "([\w.]+)"', message)
