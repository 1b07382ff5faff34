"""Write a model whose plain forward is the steered one: changed weights, the card beside them, equality asserted."""

import json
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.files import check_folder, check_no_links, folder_aside, write
from lightning_steer.lm.language_model import LLM
from lightning_steer.strength import check_strength
from lightning_steer.vectors import fingerprint
from lightning_steer.vectors.bake import lora, weights
from lightning_steer.vectors.bake.plan import BakePlan, at_sites, everywhere, tokens
from lightning_steer.vectors.card import Model
from lightning_steer.vectors.file import SteeringVector
from lightning_steer.vectors.summary import summary
from lightning_steer.versions import versions

EQUAL = 1e-5
"""Largest difference of logits from the hooked model, as a share of their largest size, in float32."""
CARD = "steering.json"
FORMAT = 1


class Baked(NamedTuple):
    """What was written."""

    notes: list[str]
    difference: float
    """Largest difference of logits from the hooked model, as a share of their largest size."""
    size: int
    """Bytes of the folder."""
    seconds: float


def bake(vector: SteeringVector, folder: Path, strength: float | None = None, remove_everywhere: bool = False) -> Baked:
    """Write a model folder in Hugging Face's form, float32; nothing is written unless its logits are the hooked ones.

    Args:
        vector: its card names the model, which is loaded.
        folder: a new folder, or an empty one.
        strength: fixed in the weights; None for the card's own.
        remove_everywhere: take the vector's direction out of the embedding and every attention and MLP output, instead
            of steering at the vector's own sites.

    Raises:
        ValueError: the edit is not exact in the weights of this model; the message gives the reason.
    """
    start = time.monotonic()
    llm, plan, expected = prepared(vector, folder, strength, remove_everywhere)
    base = fingerprint.of_backbone(llm)
    notes = weights.change(llm.model, plan.changes)
    with folder_aside(folder.parent, folder.name) as part:
        llm.model.save_pretrained(part)
        llm.tokenizer.save_pretrained(part)
        for path in part.glob("*.safetensors"):  # safetensors lets only their owner read them; a server is another user
            path.chmod((part / "config.json").stat().st_mode)
        again = LLM(str(part), 0, dtype="float32")
        again.load()
        difference = compare(plain(again), expected, plan.operation)
        result = fingerprint.of_backbone(again)._replace(name=folder.name)
        _finish(part, folder, vector, plan, base, difference, {"model": result._asdict()}, "model")
    return Baked(notes, difference, size_of(folder), time.monotonic() - start)


def adapter(
    vector: SteeringVector, folder: Path, strength: float | None = None, remove_everywhere: bool = False
) -> Baked:
    """Write the same change as a LoRA adapter in peft's form; arguments and errors as for :func:`bake`."""
    start = time.monotonic()
    llm, plan, expected = prepared(vector, folder, strength, remove_everywhere)
    base = fingerprint.of_backbone(llm)
    made = lora.made(llm.model, plan.changes, base.name)
    with folder_aside(folder.parent, folder.name) as part:
        lora.save(part, made)
        with lora.applied(llm.model, part):
            difference = compare(plain(llm), expected, plan.operation)
        more = {"rank": made.config["r"], "modules": made.config["target_modules"]}
        _finish(part, folder, vector, plan, base, difference, more, "adapter")
    return Baked([], difference, size_of(folder), time.monotonic() - start)


def prepared(
    vector: SteeringVector, folder: Path, strength: float | None, remove_everywhere: bool
) -> tuple[LLM, BakePlan, Tensor]:
    """Return the model in float32, the plan and the hooked logits; raise ValueError before anything is changed."""
    check_folder(folder)
    check_no_links(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} exists and is not empty: name another folder")
    card = vector.card
    if card.model is None:
        raise UserError("the vector's card names no model, and weights are a model's: name it with --llm")
    if card.positions["name"] != "AllTokens":
        raise UserError(
            f"the vector steers the tokens {card.positions}, and weights act on every token: keep the vector file, or "
            "fit and judge it on AllTokens"
        )
    if strength is not None:
        check_strength(strength, "the strength that is baked")
    llm = LLM(card.model.name, 0, dtype="float32")
    llm.load()
    fingerprint.refuse(card.model, lambda files: fingerprint.of_backbone(llm, files))
    plan = (
        everywhere(llm, vector, strength) if remove_everywhere else at_sites(llm, vector, _strength(vector, strength))
    )
    return llm, plan, plain(llm, plan.hooked)


def _strength(vector: SteeringVector, strength: float | None) -> float:
    return vector.card.strength.value if strength is None else strength


@torch.no_grad()
def plain(llm: LLM, hooked: AbstractContextManager[None] | None = None) -> Tensor:
    """Return the logits ``[B, T, V]`` of the model's own forward on the tokens that are compared."""
    ids = tokens(llm.decoder)
    if hooked is None:
        return llm.model(ids, use_cache=False).logits
    with hooked:
        return llm.model(ids, use_cache=False).logits


def compare(logits: Tensor, expected: Tensor, operation: str) -> float:
    """Return the largest difference as a share of the logits' size; raise ValueError if it is more than rounding."""
    difference = float((logits - expected).abs().max() / expected.abs().max().clamp_min(1e-6))
    if not difference <= EQUAL:
        raise UserError(
            f"the changed weights do not do what the hooks do ({operation}): logits differ by {difference:.1e} of "
            f"their size, and {EQUAL:g} is accepted; nothing was written"
        )
    return difference


def size_of(folder: Path) -> int:
    """Return the bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.iterdir())


def _finish(
    part: Path,
    folder: Path,
    vector: SteeringVector,
    plan: BakePlan,
    base: Model,
    difference: float,
    more: dict[str, Any],
    kind: str,
) -> None:
    """Write the card beside the weights, then give the folder its name."""
    changed = {f"{weight.module}.{weight.name}": form.matrix is not None for weight, form in plan.changes.items()}
    record = {
        "format": FORMAT,
        "kind": kind,
        "operation": plan.operation,
        "base": base._asdict(),
        "largest_difference": difference,
        "weights": [name for name, is_changed in changed.items() if is_changed],
        "biases": [
            f"{weight.module}.{weight.bias}" for weight, form in plan.changes.items() if bool(form.offset.any())
        ],
        "vector": vector.card.as_plain(),
        "versions": versions(),
        **more,
    }
    write(part / CARD, (json.dumps(record, indent=1, sort_keys=True) + "\n").encode())
    write(part / "README.md", _readme(vector, plan, base, difference, kind).encode())
    if folder.is_dir():
        folder.rmdir()  # it is empty
    part.rename(folder)


def _readme(vector: SteeringVector, plan: BakePlan, base: Model, difference: float, kind: str) -> str:
    return (
        f"# {base.name}, steered in its weights\n\n"
        f"A steered {kind}: {plan.operation}. Its plain forward is the steered one: in float32 the logits differ from "
        f"those of the hooked model by at most {difference:.1e} of their size. `{CARD}` has the vector's card and the "
        f"fingerprints.\n\n```text\n{summary(vector.card)}\n```\n\n"
        f"Licence of the vector: {vector.card.licence}. Those of the model and of its data still hold.\n"
    )
