"""Numbers that a user sets: finite, and within the range that their names allow; refused in one place.

The command line checks its whole configuration here before anything is made; Python callers check what they are given.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from torch import Tensor


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

    def __str__(self) -> str:
        if self.high < math.inf:
            return f"lie between {self.low:g} and {self.high:.10g}" + (" (excluded)" if self.open_above else "")
        return f"be {'above' if self.open_below else 'at least'} {self.low:g}"


SEED = Range(0, 2**32 - 1)  # what numpy, torch and Lightning all take
SHARE = Range(0, 1)
COUNT = Range(1)
POSITIVE = Range(0, open_below=True)
RANGES = {
    "seed": SEED,
    "world_seed": SEED,
    "seed_everything": SEED,
    "learning_rate": POSITIVE,
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
    "resamples": COUNT,
    "random_draws": COUNT,
    "samples": COUNT,
    "per_type": COUNT,
    "per_topic": COUNT,
    "texts_per_shard": COUNT,
    "tokens_per_batch": COUNT,
    "rank": COUNT,
    "features": COUNT,
    "weight_decay": Range(0),
    "betas": Range(0, 1, open_above=True),
    "widths": COUNT,
    "warm_up": Range(0),
    "hidden_size": COUNT,
    "intermediate_size": COUNT,
    "num_hidden_layers": COUNT,
    "num_attention_heads": COUNT,
    "num_key_value_heads": COUNT,
    "check_val_every_n_epoch": COUNT,
    "accumulate_grad_batches": COUNT,
    "log_every_n_steps": Range(0),
    "num_sanity_val_steps": Range(-1),
    "gradient_clip_val": Range(0),
}
"""The range of every setting of this name, wherever it stands in a configuration."""


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
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        finite(path, value)
        within = RANGES.get(key)
        if within is not None and value not in within:
            raise ValueError(f"{path} must {within}, not {value}")


def finite(name: str, values: Tensor | float | Iterable[float]) -> None:
    """Raise ValueError naming the first of these numbers that is NaN or infinite."""
    numbers = values.flatten().tolist() if isinstance(values, Tensor) else values
    for number in numbers if isinstance(numbers, Iterable) else [numbers]:
        if not math.isfinite(number):
            raise ValueError(f"{name} must be a finite number, not {number}")
