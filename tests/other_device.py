"""A device that is not the CPU, on any machine: tensors that say they are elsewhere, and refuse what a GPU refuses.

Numbers are computed on the CPU, so results must be equal to those of the CPU, bit for bit. As on a GPU, an operation
on tensors of both devices raises an error, except copies, indices and single numbers in elementwise operations; numpy
reads none; and a random draw needs a generator of its own device. Every wait of the CPU for a number is counted.
"""

from collections import Counter
from typing import Any

import torch
from lightning.pytorch.accelerators import Accelerator, AcceleratorRegistry
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_iter, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("elsewhere")
ELSEWHERE = torch.device("elsewhere:0")
aten = torch.ops.aten
TAKES_INDICES = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
COPIES = (aten.copy_.default, aten._to_copy.default)
WAITS = (aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.is_nonzero.default)
"""Operations whose result the CPU has to wait for."""
waits: Counter[str] = Counter()
"""How often the CPU waited for the device, and copied to it, since this was cleared."""


class Elsewhere(torch.Tensor):
    """A tensor on :data:`ELSEWHERE`; ``raw`` holds its numbers."""

    raw: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> "Elsewhere":
        """Wrap numbers."""
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            raw.shape,
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=ELSEWHERE,
        )
        made.raw = raw
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation."""
        return _run(func, args, kwargs or {})

    @property
    def data(self) -> "Elsewhere":  # type: ignore[override]
        """Return it without its history; setting it replaces the numbers too."""
        return self.detach()  # type: ignore[return-value]

    @data.setter
    def data(self, value: "Elsewhere") -> None:
        torch.Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.raw = value.raw

    def tolist(self) -> Any:
        """Copy the numbers to the CPU; a subclass cannot otherwise."""
        return self.cpu().tolist()

    def numpy(self, *_args: Any, **_more: Any) -> Any:
        """Refuse, as a GPU's tensor does."""
        raise TypeError(f"can't convert {self.device} device type tensor to numpy")

    __array__ = numpy

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Save the numbers as the CPU's."""
        return self.cpu().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Elsewhere":
        """Copy the numbers."""
        copied = memo[id(self)] = Elsewhere(self.raw.detach().clone())
        if isinstance(self, torch.nn.Parameter):
            copied = memo[id(self)] = torch.nn.Parameter(copied, self.requires_grad)
        return copied  # type: ignore[return-value]


class Device(TorchDispatchMode):
    """Inside, tensors can be made on :data:`ELSEWHERE` and moved to it."""

    def __enter__(self) -> "Device":
        """Make ``torch.tensor`` build its numbers on the CPU and move them, which this mode sees."""
        torch._C._set_only_lift_cpu_tensors(True)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        """Restore."""
        torch._C._set_only_lift_cpu_tensors(False)
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, which in inference mode may be made of several."""
        TorchDispatchMode.__enter__(self)
        try:
            out = func.decompose(*args, **(kwargs or {}))
        finally:
            TorchDispatchMode.__exit__(self, None, None, None)
        return _run(func, args, kwargs or {}) if out is NotImplemented else out


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensors = [x for x in tree_iter((args, kwargs)) if isinstance(x, torch.Tensor)]
    there = [x for x in tensors if isinstance(x, Elsewhere)]
    device = kwargs.get("device")
    makes = bool(there) if device is None else torch.device(device).type == ELSEWHERE.type
    if there and func not in COPIES:
        _refuse_mixtures(func, args, tensors)
    if makes and kwargs.get("generator") is not None:
        raise RuntimeError(f"{func}: expected a generator of {ELSEWHERE}, found one of {kwargs['generator'].device}")
    if (there and func in WAITS) or (func is aten._to_copy.default and there and not makes):
        waits["to the CPU"] += 1
    elif func in COPIES and makes and len(there) < len(tensors):
        waits["from the CPU"] += 1
    plain = kwargs if device is None else {**kwargs, "device": torch.device("cpu")}
    raw_args, raw_kwargs = tree_map(lambda x: x.raw if isinstance(x, Elsewhere) else x, (args, plain))
    out = func(*raw_args, **raw_kwargs)
    if func is aten.copy_.default:
        return args[0]
    if not makes:
        return out
    out = tree_map(lambda x: Elsewhere(x) if isinstance(x, torch.Tensor) else x, out)
    return return_and_correct_aliasing(func, args, kwargs, out)


def _refuse_mixtures(func: Any, args: tuple[Any, ...], tensors: list[torch.Tensor]) -> None:
    """Raise RuntimeError where CUDA does."""
    here = [x for x in tensors if not isinstance(x, Elsewhere)]
    if func._schema.is_mutable and not isinstance(args[0], Elsewhere):
        wrong = True
    elif func in TAKES_INDICES:  # the CPU's may pick from a device's tensor, and a single number be put there
        wrong = not isinstance(args[0], Elsewhere) or any(x.dim() for x in args[2:3] if not isinstance(x, Elsewhere))
    else:
        wrong = any(x.dim() or torch.Tag.pointwise not in func.tags for x in here)
    if wrong:
        raise RuntimeError(f"{func}: tensors of {[f'{list(x.shape)} on {x.device}' for x in tensors]}")


class ElsewhereAccelerator(Accelerator):
    """Lightning's view of the device."""

    def setup_device(self, device: torch.device) -> None:
        """Nothing."""

    def teardown(self) -> None:
        """Nothing."""

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        """Return them."""
        return devices

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        """Return the one that there is."""
        return [ELSEWHERE]

    @staticmethod
    def auto_device_count() -> int:
        """Return 1."""
        return 1

    @staticmethod
    def is_available() -> bool:
        """Return True."""
        return True

    @staticmethod
    def name() -> str:
        """Return the name."""
        return ELSEWHERE.type

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        """Return nothing."""
        return {}


AcceleratorRegistry.register(ELSEWHERE.type, ElsewhereAccelerator)
TRAINER = (
    f"--trainer.accelerator={ELSEWHERE.type}",
    "--trainer.devices=1",
    "--trainer.strategy.class_path=lightning.pytorch.strategies.SingleDeviceStrategy",
    f"--trainer.strategy.init_args.device={ELSEWHERE}",
    "--trainer.inference_mode=false",  # in which tensors of a subclass cannot change their form; no_grad remains
)
"""Options of the command line for runs on the device."""
