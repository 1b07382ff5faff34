"""What a tokenizer makes of pairs: their first tokens and lengths, and what it cannot read or tell apart."""

from collections.abc import Sequence
from typing import Any

from lightning_steer.lint.features import Sides
from lightning_steer.lint.records import Finding, Pair
from lightning_steer.lint.texts import answer
from lightning_steer.lm.continuations import continuations
from lightning_steer.pair_texts import options


def read(pairs: Sequence[Pair], tokenizer: Any) -> tuple[list[tuple[str, str]], list[Sides], list[Finding]]:
    """Return first tokens and lengths in tokens of both sides of every pair, and what is wrong with the tokens.

    Continuations are read after their prompt and a blank, without a chat template.
    """
    starts: list[tuple[str, str]] = []
    unknown: list[tuple[int, str]] = []
    identical: list[int] = []
    for i, (prompt, *sides) in enumerate(pairs):
        try:
            parts = continuations(tokenizer, prompt.strip(), options(prompt.strip(), *map(str.strip, sides)), True)
        except ValueError as error:
            starts.append(("", ""))
            unknown.append((i, str(error)))
            continue
        ids = [tokens for _, tokens in parts]
        starts.append((tokenizer.decode(ids[0][:1]), tokenizer.decode(ids[1][:1])))
        if ids[0] == ids[1]:
            identical.append(i)
        if tokenizer.unk_token_id is not None and any(tokenizer.unk_token_id in (*a, *b) for a, b in parts):
            unknown.append((i, f"it reads a part as {tokenizer.unk_token}"))
    texts = [answer(prompt, side) for prompt, *sides in pairs for side in sides]
    sizes = [float(len(ids)) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    findings = []
    if unknown:
        place, reason = unknown[0]
        findings.append(
            _finding(len(unknown), f"has text that the tokenizer does not know (pair {place + 1}: {reason})")
        )
    if identical:
        what = f"has the same tokens on both sides (the first is pair {identical[0] + 1})"
        findings.append(_finding(len(identical), what))
    return starts, list(zip(sizes[::2], sizes[1::2], strict=True)), findings


def _finding(count: int, what: str) -> Finding:
    verb = f"{count} pair{'s' * (count > 1)} {what if count == 1 else what.replace('has ', 'have ', 1)}"
    return Finding("tokens", count, None, None, f"{verb}: write it otherwise, or leave the pair out.")
