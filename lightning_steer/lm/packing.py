"""Test on the model, beyond all of its windows, whether options packed into one row score as each one alone."""

from typing import Any

import torch

from lightning_steer.lm.tokens import TokenRow
from lightning_steer.lm.windows import LONGEST_WINDOW, SMALL_WINDOW, mask_forms, small_copy, windows


def options_fit(decoder: Any, pad: int, bound: float) -> bool:
    """Return whether several options can share one row after a prompt; store the working mask form in the decoder.

    Args:
        decoder: a :class:`~lightning_steer.lm.decoder.Decoder`.
        pad: a token to pad with.
        bound: largest difference of logits that counts as rounding, as a share of their size.
    """
    return any(_fit(decoder, form, pad, bound) for form in mask_forms(decoder.config))


def _fit(decoder: Any, form: tuple[str, ...], pad: int, bound: float) -> bool:
    sizes = windows(decoder.config)
    real_windows = [length for length in sizes.values() if length <= LONGEST_WINDOW]
    decoder.form = form
    try:
        if len(real_windows) < len(sizes):
            copied = type(decoder)(small_copy(decoder.model, 64))
            copied.form = form
            if distance(copied, _beyond(SMALL_WINDOW), 0) > 1e-4:
                return False
        return distance(decoder, _beyond(max(real_windows, default=0)), pad) <= bound
    except Exception:  # families whose masks, positions or biases cannot be set for each token
        return False


def _beyond(window: int) -> int:
    """Return a prompt length beyond a window, where the second option's slots and positions lie in different chunks."""
    return max(2 * window - 7, window + 4)


def distance(decoder: Any, prompt: int, pad: int) -> float:
    """Return the largest difference of two options' logits in one row from plain passes, relative to their size.

    Args:
        decoder: a :class:`~lightning_steer.lm.decoder.Decoder`.
        prompt: tokens before the options, which have six and five.
        pad: a token to pad with.
    """
    length = int(min(decoder.longest - 11, prompt))
    ids = torch.randint(len(decoder.embedding), (length + 11,), generator=torch.Generator().manual_seed(0)).tolist()
    segment, position = [0] * length + [1] * 6 + [2] * 5, [*range(length + 6), *range(length, length + 5)]
    h = decoder.states(decoder.collate([TokenRow(ids, position, segment, length, 0, [])], pad))[0]
    worst = 0.0
    for number in (1, 2):
        index = torch.tensor([i for i, s in enumerate(segment) if s in (0, number)], device=h.device)
        text = torch.tensor([ids], device=decoder.embedding.device)[:, index.to(decoder.embedding.device)]
        expected = decoder.model(text, use_cache=False).logits[0, length - 1 :].float()
        logits = decoder.logits(h[index[length - 1 :]]).to(expected.device)
        difference = (logits - expected).abs().max() / expected.abs().max().clamp_min(1e-6)
        worst = max(worst, float(difference.nan_to_num(torch.inf)))
    return worst
