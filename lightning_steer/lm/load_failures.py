"""Say in one sentence why a model could not be loaded: libraries raise many types, and long texts."""

import re


def is_foreign(text: str) -> bool:
    """Return whether an error says that a model brings code of its own."""
    return "trust_remote_code" in text or "custom code" in text


def explain_failure(name: str, revision: str | None, error: Exception) -> str:
    """Return in one sentence why a model could not be loaded, and what to do."""
    text, kinds = str(error), {type(e).__name__ for e in _chain(error)}
    if "GatedRepoError" in kinds or "gated repo" in text:
        return f"{name} is gated: ask for access on its hub page, then log in with `hf auth login` or set HF_TOKEN"
    if is_foreign(text):
        return (
            f"{name} brings code of its own, which is never run here: use a model of a family that transformers knows"
        )
    if "safetensors" in text and ("does not appear to have" in text or "no file named" in text or "not found" in text):
        return (
            f"{name} has no safetensors weights (pickled ones are never loaded): convert it, or take another revision"
        )
    if "SafetensorError" in kinds or "EOFError" in kinds:
        return f"the weights of {name} are damaged ({describe(error)}): download or save them again"
    if "not a valid git identifier" in text:
        return f"{name} has no revision {revision!r} on the hub: give a branch, a tag or a commit that it has"
    if "accelerate" in text:
        return "device_map needs accelerate: pip install accelerate"
    if "Unrecognized configuration class" in text:
        kind = re.search(r"configuration class <class '[\w.]*?(\w+)'>", text)
        return (
            f"{name} is no causal language model (its configuration is a {kind[1] if kind else 'foreign class'}): "
            "take a decoder"
        )
    if "JSONDecodeError" in kinds or "not a valid JSON" in text:
        return f"a configuration file of {name} is not valid JSON ({describe(error)})"
    if "model type" in text or "model_type" in text:
        return f"{name} is of no family that this version of transformers knows ({describe(error)})"
    if "RepositoryNotFoundError" in kinds or "not a valid model identifier" in text:
        return (
            f"there is no model {name!r} on the hub, or it is private: check the name, or log in with `hf auth login`"
        )
    if "connect" in text or "offline" in text.lower() or "LocalEntryNotFoundError" in kinds:
        return f"{name} is neither a local folder nor in the hub's local cache, and the hub cannot be reached"
    if "FileNotFoundError" in kinds:
        return f"a file of {name} is missing ({describe(error)}): download or save it again"
    return f"{name} cannot be loaded as a causal language model: {describe(error)}"


def _chain(error: BaseException | None) -> list[BaseException]:
    errors = []
    while error is not None:
        errors.append(error)
        error = error.__cause__ or error.__context__
    return errors


def describe(error: BaseException) -> str:
    """Return an error's type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"
