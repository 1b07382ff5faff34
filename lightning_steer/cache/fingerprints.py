"""Fingerprints (sha256) of a model's files, weights and configuration, of its tokenizer, and of texts.

Weights are fingerprinted by their whole content, never by samples or times: editing a single matrix, or one
token's embedding, makes another model. This costs one read of files that must be read anyway.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from safetensors import safe_open
from torch import Tensor, nn

from lightning_steer.cache.files import digest

INCIDENTAL = {"transformers_version", "_name_or_path", "architectures", "dtype", "torch_dtype", "quantization_config"}
INCIDENTAL |= {"use_cache", "output_hidden_states", "transformers_weights"}
"""Entries of a configuration that loading changes, or that do not affect activations; precision is recorded apart."""


def of_texts(texts: Iterable[str]) -> tuple[str, int]:
    """Return the fingerprint of all texts in order, and their number, with one text in memory at a time."""
    hashed, count = hashlib.sha256(), 0
    for text in texts:
        content = text.encode("utf-8", "surrogatepass")
        hashed.update(len(content).to_bytes(8, "little") + content)  # separates each text from the next
        count += 1
    return hashed.hexdigest(), count


def of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the fingerprint of named tensors, such as a method's state: names, kinds, shapes and bits."""
    hashed = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        content = value.detach().cpu().contiguous()
        hashed.update(f"{name} {content.dtype} {list(content.shape)} ".encode())
        hashed.update(content.reshape(-1).view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()


def of_files(name: str, revision: str | None, model: nn.Module | None = None) -> str | None:
    """Return the fingerprint of a model's safetensors files, the same for every precision they are read in.

    Args:
        name: a local folder, or a hub name in the local cache.
        revision: branch, tag or commit on the hub.
        model: model whose weights must equal the files', each in its own precision; None compares nothing.

    Returns:
        None if there are no files, or if a weight in memory differs or is not in them.
    """
    from transformers.utils.hub import cached_file

    options = {"revision": revision, "local_files_only": True, "_raise_exceptions_for_missing_entries": False}
    try:
        config = cached_file(name, "config.json", **options)
    except Exception:  # an invalid name: the model was not read from files
        config = None
    files = [] if config is None else sorted(Path(config).parent.glob("*.safetensors"))
    if not files or (model is not None and not _matches_files(model, files)):
        return None
    with ThreadPoolExecutor() as threads:
        hashes = list(threads.map(lambda file: _of_file(file, _state(file)), files))
    return _of(hashes)


def _matches_files(model: nn.Module, files: Iterable[Path]) -> bool:
    """Return whether all weights in memory equal the files'; quantised weights are not compared."""
    if getattr(getattr(model, "config", None), "quantization_config", None) is not None:
        return True
    from transformers.core_model_loading import revert_weight_conversion

    weights = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    with suppress(Exception):  # weights under other names than the files' are not found, and count as unknown
        weights = dict(revert_weight_conversion(model, weights))  # type: ignore[arg-type]
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    places = {(value.data_ptr(), value.shape) for value in weights.values()}
    for path in files:
        with safe_open(path, "pt") as file:
            keys = list(file.keys())
        for key in keys:
            name = next((n for n in (key, prefix + key, key.removeprefix(prefix)) if n in weights), None)
            if name is None:
                continue
            with safe_open(path, "pt") as file:  # anew: what was read stays in memory as long as its file is open
                loaded, saved = weights[name], file.get_tensor(key)
            if loaded.is_meta or loaded.shape != saved.shape or not torch.equal(loaded.cpu(), saved.to(loaded.dtype)):
                return False
            places.discard((loaded.data_ptr(), loaded.shape))  # with all weights tied to it
    return not places


def _state(file: Path) -> tuple[int, ...]:
    status = os.stat(file)
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@lru_cache(maxsize=4096)
def _of_file(file: Path, _state: tuple[int, ...]) -> str:
    """Hash a file; a process reads it again only if the file changed, since usually several caches need it."""
    return digest(file)


@contextmanager
def remembered() -> Iterator[None]:
    """Hash unchanged weights only once for each model inside the block.

    For a whole command, in which cache, checkpoint and card need them in turn. Not for a user's Python:
    changes through ``.data`` are not noticed.
    """
    token = _KNOWN.set(WeakKeyDictionary())
    try:
        yield
    finally:
        _KNOWN.reset(token)


_KNOWN: "ContextVar[WeakKeyDictionary[nn.Module, tuple[Any, str | None]] | None]" = ContextVar("known", default=None)
"""Fingerprints of models' weights, and the state in which they were hashed."""


def of_memory(model: nn.Module) -> str | None:
    """Return the fingerprint of all weights in memory; None if some are offloaded to disk."""
    hashed = _KNOWN.get()
    if hashed is None:
        return _of_memory(model)
    state = tuple(
        (t.data_ptr(), 0 if t.is_inference() else t._version)
        for t in model.state_dict(keep_vars=True).values()
        if isinstance(t, torch.Tensor) and not t.is_meta
    )
    if model not in hashed or hashed[model][0] != state:
        hashed[model] = (state, _of_memory(model))
    return hashed[model][1]


def _of_memory(model: nn.Module) -> str | None:
    state = sorted(model.state_dict().items())
    if any(value.is_meta for _, value in state if isinstance(value, torch.Tensor)):
        return None

    def of(value: Any) -> str:
        if not isinstance(value, torch.Tensor):
            return repr(value)
        bits = value.detach().cpu().contiguous().flatten().view(torch.uint8)
        return f"{value.dtype} {list(value.shape)} {hashlib.sha256(bits.numpy().data).hexdigest()}"

    with ThreadPoolExecutor() as threads:
        return _of(list(threads.map(lambda item: (item[0], of(item[1])), state)))


def of_configuration(config: Any) -> str:
    """Return the fingerprint of a configuration's differences from its family's defaults."""

    def telling(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(name): telling(item) for name, item in value.items() if name not in INCIDENTAL}
        return value

    return _of(telling(config.to_diff_dict()))


def of_tokenizer(tokenizer: Any) -> str:
    """Return the fingerprint of vocabulary and rules."""
    if not getattr(tokenizer, "is_fast", False):
        vocabulary = sorted(tokenizer.get_vocab().items())
        return _of([type(tokenizer).__name__, vocabulary, repr(tokenizer.init_kwargs)])
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    return _of({**rules, "padding": None, "truncation": None})  # every call sets these two again


def _of(value: Any) -> str:
    return digest(json.dumps(value, sort_keys=True, default=repr).encode())
