"""Reject families that cannot be steered, before their weights are read."""

from typing import Any

from lightning_steer.errors import UserError

UNCOUNTED = ("mamba", "mamba2", "falcon_mamba", "rwkv", "xlstm", "recurrent_gemma")
"""``model_type`` of the families whose state does not record the number of read tokens."""
ADVICE = "take a decoder with attention, such as Llama, Qwen or Gemma"


def check_family(config: Any, name: str) -> None:
    """Raise ValueError if a model of this configuration cannot be steered.

    Args:
        config: a configuration of transformers.
        name: the model's name in the message.
    """
    family = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise UserError(f"{name} is of the encoder-decoder family {family}, not a decoder: {ADVICE}")
    if family in UNCOUNTED:
        raise uncounted(family, name)


def uncounted(family: str, name: str) -> UserError:
    """Return the error for a family without a key-value cache that counts tokens."""
    return UserError(
        f"{name} is of the family {family}, which has no key-value cache that counts tokens, so that the tokens to be "
        f"steered cannot be told: {ADVICE}"
    )
