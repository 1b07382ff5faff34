"""Whether options side by side in one row come out as each by itself: seen on the model, beyond all of its windows."""

from typing import Any

import torch

from lightning_steer.lm.tokens import Row
from lightning_steer.lm.windows import LONGEST_WINDOW, SMALL_WINDOW, mask_forms, small_copy, windows


def options_fit(decoder: Any, pad: int, bound: float) -> bool:
    """Whether several options can follow one prompt in one row; the form of masks that does it stays in the decoder.

    Args:
        decoder: a :class:`~lightning_steer.lm.decoder.Decoder`.
        pad: a token to pad with.
        bound: largest difference of logits that is rounding, as a share of their size.
    """
    return any(_fit(decoder, form, pad, bound) for form in mask_forms(decoder.config))


def _fit(decoder: Any, form: tuple[str, ...], pad: int, bound: float) -> bool:
    sizes = windows(decoder.config)
    tried = [length for length in sizes.values() if length <= LONGEST_WINDOW]
    decoder.form = form
    try:
        if len(tried) < len(sizes):
            copied = type(decoder)(small_copy(decoder.model, 64))
            copied.form = form
            if distance(copied, _beyond(SMALL_WINDOW), 0) > 1e-4:
                return False
        return distance(decoder, _beyond(max(tried, default=0)), pad) <= bound
    except Exception:  # families whose masks, positions or biases cannot be given token by token
        return False


def _beyond(window: int) -> int:
    """Tokens of a prompt longer than a window, the second option's slots in another chunk than its positions."""
    return max(2 * window - 7, window + 4)


def distance(decoder: Any, prompt: int, pad: int) -> float:
    """Largest difference of two options' logits in one row from plain passes, as a share of the logits' size.

    Args:
        decoder: a :class:`~lightning_steer.lm.decoder.Decoder`.
        prompt: tokens before the options, which have six and five.
        pad: a token to pad with.
    """
    room = int(min(decoder.longest - 11, prompt))
    ids = torch.randint(len(decoder.embedding), (room + 11,), generator=torch.Generator().manual_seed(0)).tolist()
    segment, position = [0] * room + [1] * 6 + [2] * 5, [*range(room + 6), *range(room, room + 5)]
    h = decoder.states(decoder.collate([Row(ids, position, segment, room, 0, [])], pad))[0]
    worst = 0.0
    for number in (1, 2):
        own = torch.tensor([i for i, s in enumerate(segment) if s in (0, number)], device=h.device)
        text = torch.tensor([ids], device=decoder.embedding.device)[:, own.to(decoder.embedding.device)]
        expected = decoder.model(text, use_cache=False).logits[0, room - 1 :].float()
        found = decoder.logits(h[own[room - 1 :]]).to(expected.device)
        difference = (found - expected).abs().max() / expected.abs().max().clamp_min(1e-6)
        worst = max(worst, float(difference.nan_to_num(torch.inf)))
    return worst
