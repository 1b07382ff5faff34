"""The origin of a cache: all that its rows depend on, and how two origins differ."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from lightning_steer.cache import fingerprints
from lightning_steer.cache.files import digest
from lightning_steer.lm.positions import described
from lightning_steer.lm.tokens import MultipleChoice

if TYPE_CHECKING:
    from lightning_steer.lm.language_model import LLM

FORMAT = 1
"""Version of the files: raised whenever the same model and texts give other files; older caches run again."""


class Origin(NamedTuple):
    """All that a cache's rows depend on; caches of one origin are equal up to rounding on another machine."""

    weights: str | None
    """sha256 of the model's safetensors files; None if the weights in memory may differ."""
    memory: str | None
    """sha256 of the weights in memory, possibly edited; None if the model is not loaded."""
    configuration: str
    """sha256 of the model's configuration."""
    precision: str
    """Data type that the model computes in."""
    tokenizer: str
    """sha256 of the tokenizer with all its rules."""
    template: str | None
    """sha256 of chat template and system message; None without a chat."""
    part: str
    layers: list[int]
    positions: str
    """Which tokens are read."""
    each_token: bool
    """Whether each read token has its own row; else a text has one row, their mean."""
    dtype: str
    """``bfloat16``, ``float32``, or ``float16`` with a scale for every shard and layer."""
    count: int
    """Number of texts."""
    texts: str
    """sha256 of all texts in order."""
    texts_per_shard: int
    format: int = FORMAT

    @property
    def key(self) -> str:
        """Prefix of the names of this origin's shards. If the weights in memory are known, files do not matter."""
        hashed = self if self.memory is None else self._replace(weights=None)
        return digest(json.dumps(hashed._asdict(), sort_keys=True).encode())[:12]

    def differences(self, other: "Origin") -> str:
        """Describe how another origin differs; empty if it is equal.

        Weights are compared by their files if both models equal their files, else in memory; if
        neither is possible, the model must be loaded first.
        """
        names, equal = [], [a == b for a, b in zip(self[:2], other[:2], strict=True) if a is not None and b is not None]
        if not all(equal) or not equal:
            names.append("model weights" if self.weights != other.weights else "model weights in memory")
        for name, value, other_value in zip(self._fields[2:], self[2:], other[2:], strict=True):
            if value != other_value:
                hidden = name in ("configuration", "tokenizer", "template", "texts")
                names.append(WORDS.get(name, name) + ("" if hidden else f" (it has {value}, not {other_value})"))
        return ", ".join(names)


WORDS = {
    "configuration": "model configuration",
    "precision": "precision of the model",
    "template": "chat template or system message",
    "each_token": "rows for each token",
    "count": "number of texts",
    "texts_per_shard": "texts per shard",
    "format": "version of the format",
}


def text_of(question: MultipleChoice | str) -> str:
    """Return the text that :meth:`LLM.activations` reads: the prompt and its first option."""
    return question if isinstance(question, str) else question.prompt + "".join(question.choices[:1])


def origin_of(
    llm: "LLM", texts: Iterable[MultipleChoice | str], each_token: bool, dtype: str, texts_per_shard: int, fresh: bool
) -> Origin:
    """Return the origin of a recording of ``texts`` by ``llm``; its weights are loaded only as a last resort.

    ``fresh`` means that weights in memory, if any, were just read from the files. Otherwise they count as equal to the
    files only if this process read such weights from them before.
    """
    tokenizer, config = _parts(llm)
    depth = config.get_text_config().num_hidden_layers
    template = json.dumps([tokenizer.chat_template, llm.system]) if llm.chat else None
    hashed, count = fingerprints.of_texts(map(text_of, texts))
    files = fingerprints.of_files(llm.llm, llm.loading[1])
    memory = None if llm.tokenizer is None else fingerprints.of_memory(llm.model)
    if fresh and files is not None and memory is not None:
        _READ.add((memory, files))
    return Origin(
        weights=files if memory is None or (memory, files) in _READ else None,
        memory=memory,
        configuration=fingerprints.of_configuration(config),
        precision=f"{llm.loading[0]}{', 4 bits' if llm.loading[3] else ''}",
        tokenizer=fingerprints.of_tokenizer(tokenizer),
        template=None if template is None else digest(template.encode()),
        part=llm.part,
        layers=sorted(layer % depth for layer in llm.layers),
        positions=described(llm.read_positions),
        each_token=each_token,
        dtype=dtype,
        count=count,
        texts=hashed,
        texts_per_shard=texts_per_shard,
    )


_READ: set[tuple[str, str]] = set()
"""Weights in memory, and the files that this process read them from."""


def _parts(llm: "LLM") -> tuple[Any, Any]:
    """Return tokenizer and configuration, without loading the weights where possible."""
    if llm.tokenizer is None:
        from transformers import AutoConfig, AutoTokenizer

        options: dict[str, Any] = {"revision": llm.loading[1], "trust_remote_code": False}
        try:
            config = AutoConfig.from_pretrained(llm.llm, **options)
            depth = config.get_text_config().num_hidden_layers
            if all(-depth <= layer < depth for layer in llm.layers):
                return AutoTokenizer.from_pretrained(llm.llm, **options), config
        except Exception:  # noqa: S110  # whatever is wrong with the model, loading it says so in one sentence
            pass
        llm.load()
    return llm.tokenizer, llm.model.config
