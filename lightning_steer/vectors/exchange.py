"""Import files of other tools, and export files for them, by format."""

import json
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from lightning_steer.errors import UserError
from lightning_steer.files import write
from lightning_steer.strength import check_strength
from lightning_steer.vectors import gguf, lm_eval, plain
from lightning_steer.vectors.card import Card, Strength
from lightning_steer.vectors.constant import by_layer, imported
from lightning_steer.vectors.file import KEY, SteeringVector, load, read_card, save

LIMIT = 1 << 30
"""The largest file that is imported, in bytes: a vector of 100 layers of width 16,384 takes 7 MB."""


def read(path: Path) -> SteeringVector:
    """Read a vector in any known format, detected by content; raise FileNotFoundError or ValueError."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if path.stat().st_size > LIMIT:
        raise UserError(
            f"{path} has {path.stat().st_size / 1e9:.1f} GB, which is no vector; {LIMIT / 1e9:.1f} GB are read"
        )
    if KEY in _metadata(path):
        return load(path)
    content = path.read_bytes()
    try:
        return _import(content, path)
    except ValueError as error:
        raise UserError(f"{path} cannot be imported: {error}") from error


POINTER = b"version https://git-lfs.github.com/spec/"
CARD = "lightning_steer.card"
"""Entry of another tool's file that contains our card."""


def _import(content: bytes, path: Path) -> SteeringVector:
    source = str(path)
    if content[:4] == gguf.MAGIC:
        vectors, metadata = gguf.decode(content)
        card = _card_in(metadata.get(CARD))
        vector = imported({(layer, "block"): value for layer, value in vectors.items()}, source, card)
        return vector._replace(card=vector.card._replace(warnings=[gguf.BLOCK_0])) if 0 in vectors else vector
    if content.startswith(POINTER):
        raise UserError("it is a pointer of Git LFS, which stands for a file that was not fetched: run `git lfs pull`")
    if content[:2] == b"PK":
        tensors = plain.read_torch(path)
        nested = any(isinstance(value, dict) for value in tensors.values())
        return imported(lm_eval.decode(tensors) if nested else plain.decode(tensors), source)
    return imported(plain.decode(plain.read_safetensors(content)), source, _card_in(_metadata(path).get(CARD)))


def _card_in(text: object) -> Card | None:
    """Return the card in a file that this project wrote; None for other tools' files."""
    if text is None:
        return None
    if not isinstance(text, str):
        raise UserError("its lightning_steer.card is not text")
    try:
        return read_card(text)
    except json.JSONDecodeError as error:
        raise UserError(f"its lightning_steer.card is not JSON ({error})") from error


def _metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file; empty for other files."""
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError, MemoryError, ValueError, TypeError, RuntimeError):
        return {}


def _card_of(vector: SteeringVector) -> str:
    return json.dumps(vector.card.as_plain(), sort_keys=True)


def _as_gguf(vector: SteeringVector, strength: float) -> bytes:
    card = vector.card
    metadata = {"general.license": card.licence, CARD: _card_of(vector)}
    return gguf.encode(by_layer(vector, strength), "" if card.model is None else card.model.family, metadata)


WRITERS: dict[str, Callable[[SteeringVector, float], bytes]] = {
    "gguf": _as_gguf,
    "steered": lm_eval.encode,
    "plain": lambda vector, strength: plain.encode(by_layer(vector, strength), {CARD: _card_of(vector)}),
}
"""Formats of other tools; ``vector`` is the project's own."""


def export(vector: SteeringVector, path: Path, form: str, strength: float | None = None) -> list[str]:
    """Write the vector in a format of another tool, or its own; return sentences on what is lost.

    Args:
        vector: the vector.
        path: the file.
        form: ``vector``, or one of :data:`WRITERS`.
        strength: factor of the written vector; None for the card's own.

    Raises:
        ValueError: the format cannot hold this vector.
    """
    card = vector.card
    amount = card.strength.value if strength is None else strength
    check_strength(amount, "the strength that is exported")
    if form == "vector":
        chosen = card.strength if amount == card.strength.value else Strength(amount, card.strength.units)
        save(path, vector._replace(card=card._replace(strength=chosen)))
        return []
    content = WRITERS[form](vector, amount)
    write(path, content)
    strength_note = (
        "is its coefficient" if form == "steered" else "is multiplied in: 1 in the other tool is what was chosen here"
    )
    notes = [f"The strength {amount:g} ({card.strength.units}) {strength_note}."]
    if card.positions["name"] != "AllTokens":
        notes.append(f"It was chosen on {_describe_positions(card)} tokens; the receiving tool steers every token.")
    if form == "steered":
        notes.append("The form has no room for the card: keep the vector file beside it.")
    return notes


def _describe_positions(card: Card) -> str:
    settings = ", ".join(f"{key}={value}" for key, value in card.positions.items() if key != "name")
    return f"{card.positions['name']}({settings})" if settings else card.positions["name"]
