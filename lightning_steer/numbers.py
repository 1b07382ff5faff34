"""Numbers that a user sets: finite, and within the range that their names allow; refused in one place.

The command line checks its whole configuration here before anything is made; constructors check what they are given.
"""

import functools
import inspect
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from lightning_steer.errors import UserError


class Range(NamedTuple):
    """Where a setting may lie."""

    low: float
    high: float = math.inf
    open_below: bool = False
    """Whether ``low`` itself is excluded."""
    open_above: bool = False
    """Whether ``high`` itself is excluded."""

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_below else value >= self.low
        return above and (value < self.high if self.open_above else value <= self.high)

    def demand(self, value: float) -> str:
        """What a value outside was to do: lie between the ends; of counts only the end that it is beyond is said."""
        if math.isinf(self.high) or (self.low == 1 and value < 1):
            return f"be {'above' if self.open_below else 'at least'} {self.low:g}"
        if self.low == 1:
            return f"be at most {self.high:.10g}"
        return f"lie between {self.low:g} and {self.high:.10g}" + (" (excluded)" if self.open_above else "")


SEED = Range(0, 2**32 - 1)  # what numpy, torch and Lightning all take
SHARE = Range(0, 1)
COUNT = Range(1, 10**9)
FEW = Range(1, 10**6)  # what is multiplied by rows, or by another of its kind
MOST = 10**10
"""The largest whole number of any setting: more is a slip of the finger, whatever it counts."""
POSITIVE = Range(0, open_below=True)
RANGES = {
    "seed": SEED,
    "world_seed": SEED,
    "seed_everything": SEED,
    "learning_rate": POSITIVE,
    "budget": POSITIVE,
    "epochs": COUNT,
    "temperature": Range(0),
    "top_p": SHARE,
    "fit_share": SHARE,
    "select_share": SHARE,
    "val_share": SHARE,
    "chat_share": SHARE,
    "pull_share": SHARE,
    "delta": SHARE,
    "max_new_tokens": COUNT,
    "max_tokens": COUNT,
    "batch_size": COUNT,
    "test_rows": COUNT,
    "resamples": FEW,
    "random_draws": FEW,
    "samples": FEW,
    "per_type": COUNT,
    "per_topic": COUNT,
    "texts_per_shard": COUNT,
    "tokens_per_batch": COUNT,
    "rank": FEW,
    "features": FEW,
    "sparsity": Range(0),
    "penalties": Range(0),
    "logistic_penalties": POSITIVE,
    "weight_decay": Range(0),
    "betas": Range(0, 1, open_above=True),
    "widths": FEW,
    "warm_up": Range(0),
    "hidden_size": FEW,
    "intermediate_size": FEW,
    "num_hidden_layers": FEW,
    "num_attention_heads": FEW,
    "num_key_value_heads": FEW,
    "check_val_every_n_epoch": COUNT,
    "val_check_interval": POSITIVE,
    "limit_train_batches": POSITIVE,
    "accumulate_grad_batches": COUNT,
    "log_every_n_steps": Range(0),
    "num_sanity_val_steps": Range(-1),
    "gradient_clip_val": Range(0),
}
"""The range of every setting of this name, wherever it stands in a configuration or in a call from Python."""


def check(config: Mapping[str, Any], path: str = "") -> None:
    """Raise ValueError naming the first number in a nested configuration that is not finite or out of its range."""
    for key, value in config.items():
        _check(value, str(key), f"{path}{key}")


def _check(value: Any, key: str, path: str) -> None:
    if isinstance(value, Mapping):
        check(value, f"{path}.")
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check(item, key, path)
    elif isinstance(value, (np.generic, np.ndarray, Tensor)):
        _check(value.tolist(), key, path)
    elif isinstance(value, (int, float, Fraction, Decimal)) and not isinstance(value, bool):
        size = float(value)
        finite(path, size)
        allowed = RANGES.get(key)
        if allowed is not None and size not in allowed:
            raise UserError(f"{path} must {allowed.demand(size)}, not {value}")
        if isinstance(value, int) and abs(value) > MOST:
            raise UserError(f"{path} must lie between {-MOST} and {MOST}, not {value}")


def distinct(name: str, values: Sequence[float]) -> None:
    """Raise ValueError naming the first of these numbers that occurs twice."""
    for place, value in enumerate(values):
        if value in values[:place]:
            raise UserError(f"{name} must all be different, but {value:g} occurs twice in {list(values)}")


def finite(name: str, values: Tensor | float | Iterable[float]) -> None:
    """Raise ValueError naming the first of these numbers that is NaN or infinite."""
    numbers = values.flatten().tolist() if isinstance(values, Tensor) else values
    for number in numbers if isinstance(numbers, Iterable) else [numbers]:
        if not math.isfinite(number):
            raise UserError(f"{name} must be a finite number, not {number}")


def ranged(make: Callable[..., None]) -> Callable[..., None]:
    """Check all numbers that an ``__init__`` is given, so that Python callers hear what the command line says."""
    signature = inspect.signature(make)

    @functools.wraps(make)
    def checked(*args: Any, **kwargs: Any) -> None:
        values = signature.bind(*args, **kwargs).arguments
        for name, parameter in signature.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                values |= values.pop(name, {})
        check(values)
        make(*args, **kwargs)

    return checked


def fits(what: str, count: int, each: int = 1) -> None:
    """Raise ValueError if ``count`` things of ``each`` bytes are more than this machine's memory holds."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on this system
        memory = 2**40
    if count * each > memory:
        raise UserError(
            f"{what} need {count * each / 1e9:.3g} GB of memory, and this machine has {memory / 1e9:.3g}: ask for less"
        )
