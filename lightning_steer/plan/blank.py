"""A decoder at its true size without its weights, made of its configuration alone.

All tensors are fake: they have shapes, types and a device, and no values. The model's own code runs on them, so the
memory that is alive at once and the operations are those of the code, whatever the family does. On the CPU the
attention kernel is the one that runs there; temporary memory inside kernels is not seen.
"""

import copy
import json
import struct
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from lightning_steer.errors import UserError
from lightning_steer.lm import loading
from lightning_steer.lm.decoder import Decoder
from lightning_steer.lm.tokens import TokenBatch
from lightning_steer.lm.windows import every_expert
from lightning_steer.metrics.drift import next_token_kl
from lightning_steer.plan.known import absent

STORED = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


class Cost(NamedTuple):
    """What a computation needs."""

    memory: float
    """The most that is alive at once, in bytes, weights and inputs not counted."""
    flops: float
    """Floating-point operations: a multiplication and an addition are two."""


class Blank:
    """A decoder of fake tensors.

    Args:
        config: a configuration of transformers.
        dtype: precision of the weights.
        name: the model's name in errors.

    Raises:
        ValueError: no decoder can be built of the configuration.
    """

    def __init__(self, config: Any, dtype: torch.dtype, name: str = "the model") -> None:
        self.dtype = dtype
        self.mixture = bool(every_expert(config.get_text_config()))
        built = torch.bfloat16 if self.mixture else dtype  # the experts' kernel has no fake form in other types
        self.scale = dtype.itemsize / built.itemsize
        self.mode = FakeTensorMode()
        try:
            with self.mode:
                model = loading.auto_class(config).from_config(copy.deepcopy(config), dtype=built)
        except Exception as error:  # a family's code raises various types for sizes that do not match
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"no model can be built of the config.json of {name} ({reason})") from error
        self.decoder = Decoder(model.eval().requires_grad_(False))
        self._present = [*model.parameters(), *model.buffers()]

    @property
    def parameters(self) -> int:
        """Count the parameters; tied weights count once."""
        return sum(weight.numel() for weight in self.decoder.model.parameters())

    @property
    def vocabulary(self) -> int:
        """Count the parameters of the embedding and the vocabulary head; tied ones count once."""
        model = self.decoder.model
        ends = (part for part in (model.get_input_embeddings(), model.get_output_embeddings()) if part is not None)
        return sum({id(weight): weight.numel() for part in ends for weight in part.parameters()}.values())

    @property
    def weights(self) -> float:
        """Return the memory of the weights, in bytes."""
        buffers = sum(buffer.numel() * buffer.itemsize for buffer in self.decoder.model.buffers())
        return self.parameters * self.dtype.itemsize + buffers

    def state(self) -> int:
        """Return the size of one token's state at one layer, in bytes."""
        return self.decoder.width * self.dtype.itemsize

    def forward(self, rows: int, tokens: int) -> Cost:
        """Return the cost of ``rows`` texts of ``tokens`` tokens each, up to the vocabulary head; of no text 0."""
        if not rows * tokens:  # attention of some families has no shape for nothing
            return Cost(0.0, 0.0)
        with self.mode:
            ids, nowhere = torch.zeros(rows, tokens, dtype=torch.int64), torch.zeros(0)
        return self._measure(lambda: self.decoder.states(TokenBatch(ids, nowhere, None, nowhere, nowhere)))

    def head(self, states: int) -> Cost:
        """Return the cost of the log-probabilities of all tokens after so many states."""
        h = self._states(states)
        return self._measure(lambda: self.decoder.logits(h).log_softmax(-1))

    def compared(self, states: int) -> Cost:
        """Return the cost of comparing the predictions after so many states, unsteered and in several steered copies.

        The memory is that of any number of copies, which come one after another; the operations are of one of them.
        """
        h = self._states(states)

        def compare() -> None:
            unsteered = self.decoder.logits(h).log_softmax(-1)
            for _ in range(2):  # the copy before is alive until the next one is there
                steered = self.decoder.logits(h).log_softmax(-1)
                next_token_kl(unsteered, steered)

        memory, flops = self._measure(compare)
        return Cost(memory, flops / 3)

    def cache(self, rows: int, tokens: int) -> float:
        """Return the memory of the key-value cache of ``rows`` texts of ``tokens`` tokens each, in bytes."""
        with self.mode, torch.no_grad():
            ids = torch.zeros(1, tokens, dtype=torch.int64)
            layers = getattr(self.decoder.base(input_ids=ids, use_cache=True), "past_key_values", None)
        tensors = [getattr(layer, part, None) for layer in getattr(layers, "layers", ()) for part in ("keys", "values")]
        return rows * self.scale * sum(part.numel() * part.itemsize for part in tensors if isinstance(part, Tensor))

    def _states(self, states: int) -> Tensor:
        with self.mode:
            return torch.zeros(states, self.decoder.width, dtype=self.decoder.model.dtype)

    def _measure(self, function: Callable[[], Any]) -> Cost:
        counter = FlopCounterMode(display=False, custom_mapping=UNCOUNTED)
        with self.mode, torch.no_grad(), Alive(self._present) as alive, counter:
            function()
        return Cost(self.scale * alive.most, counter.get_total_flops())


class Alive(TorchDispatchMode):
    """Follow the memory of all tensors that are made inside the block, in bytes.

    Args:
        present: tensors that are there already, views of which need no memory.
    """

    def __init__(self, present: Iterable[Tensor]) -> None:
        super().__init__()
        self.now, self.most = 0, 0
        self._known = {tensor.untyped_storage()._cdata for tensor in present}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor):
                self._follow(tensor.untyped_storage())
        return out

    def _follow(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _attention(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Count the operations of attention, masked ones too."""
    return sdpa_flop_count(query, key, value)


def _grouped(a: Any, b: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Count the operations of ``a [tokens, k] @ b [experts, k, n]``, each token with one expert."""
    return 2 * a[0] * b[-2] * b[-1]


UNCOUNTED = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._grouped_mm: _grouped,
}
"""Kernels that torch's counter of operations leaves out."""


def located(name: str, revision: str | None = None) -> Path:
    """Return the folder of a model on this machine; never reaches the hub.

    Raises:
        ValueError: it is neither a folder nor in the hub's local cache; the message says what to download.
    """
    loading.check_name(name)
    if Path(name).is_dir():
        return Path(name)
    from transformers.utils.hub import cached_file

    try:
        path = cached_file(name, "config.json", revision=revision, local_files_only=True)
    except (OSError, ValueError) as error:  # not there, or no name that the hub could have
        raise absent(name) from error
    if path is None:
        raise absent(name)
    return Path(path).parent


def stored_dtype(folder: Path, config: Any) -> torch.dtype:
    """Return the precision that ``dtype: auto`` means: of the configuration, or of the first weights, or float32."""
    if isinstance(config.dtype, torch.dtype):
        return config.dtype
    for path in sorted(folder.glob("*.safetensors"))[:1]:
        with path.open("rb") as file:  # the header alone: its length, then JSON
            header = json.loads(file.read(min(struct.unpack("<Q", file.read(8))[0], 10**8)))
        kinds = [STORED[entry["dtype"]] for entry in header.values() if entry.get("dtype") in STORED]
        return kinds[0] if kinds else torch.float32
    return torch.float32
