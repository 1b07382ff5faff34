"""Models of the papers: size and access, for those that are not on this machine yet.

Parameters are tested against the published configurations. Precision and access are as we remember them from the hub,
and were not looked up there: their pages decide.
"""

from typing import NamedTuple

from lightning_steer.errors import UserError


class Known(NamedTuple):
    """What is published of a model's weights."""

    parameters: int
    dtype: str
    """In which they are stored."""
    gated: bool
    """Whether its owner has to give access first."""

    @property
    def download(self) -> float:
        """Return the size of the weights' files, in bytes."""
        return self.parameters * (4 if self.dtype == "float32" else 2)


GEMMA, LLAMA, QWEN, LLAMA2 = 2_614_341_888, 1_235_814_400, 3_085_938_688, 6_738_415_616
KNOWN = {
    "google/gemma-2-2b": Known(GEMMA, "float32", True),
    "google/gemma-2-2b-it": Known(GEMMA, "bfloat16", True),
    "meta-llama/Llama-3.2-1B": Known(LLAMA, "bfloat16", True),
    "meta-llama/Llama-3.2-1B-Instruct": Known(LLAMA, "bfloat16", True),
    "Qwen/Qwen2.5-3B": Known(QWEN, "bfloat16", False),
    "Qwen/Qwen2.5-3B-Instruct": Known(QWEN, "bfloat16", False),
    "meta-llama/Llama-2-7b-hf": Known(LLAMA2, "float16", True),
    "meta-llama/Llama-2-7b-chat-hf": Known(LLAMA2, "float16", True),
}
"""By name on the hub; of others nothing is known without their configuration."""


def absent(name: str) -> ValueError:
    """Return the error that a model is not on this machine: what to download, and how large it is, if known."""
    known = KNOWN.get(name)
    size = "whose size is not known here" if known is None else f"{known.download / 1e9:.1f} GB"
    gate = " (probably gated: see its hub page first)" if known is not None and known.gated else ""
    return UserError(
        f"{name} is neither a local folder nor in the hub's local cache: download it with `hf download {name}`, "
        f"{size}{gate}, or for a plan alone add config.json to that command, a few kilobytes"
    )


def access(name: str) -> str:
    """Return whether a hub model is gated, as far as is known here."""
    known = KNOWN.get(name)
    if known is None:
        return "not known"
    return "probably gated: see its hub page" if known.gated else "probably open: see its hub page"
