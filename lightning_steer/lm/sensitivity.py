"""How a decoder's next token depends on shifts of its sites."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.lm.decoder import Decoder
from lightning_steer.lm.positions import Positions
from lightning_steer.lm.tokens import TokenRow, batches
from lightning_steer.networks.gradients import weighted_gradients


def sensitivity(
    decoder: Decoder, rows: Sequence[TokenRow], widths: dict[str, int], positions: Positions, pad: int, tokens: int
) -> dict[str, Tensor]:
    """Return ``{site: [B, m, d]}``: root probability times gradient of the log of the m likeliest next tokens.

    Args:
        decoder: the model.
        rows: one text each; the outcome is the token after its last one, among its 16 likeliest ones.
        widths: the width of each site; its shift is added at all steered tokens.
        positions: the steered tokens.
        pad: a token to pad with.
        tokens: number of tokens at once.

    Raises:
        ValueError: no token of a text is steered.
    """
    result: dict[str, Tensor] = {}
    with torch.inference_mode(False), torch.enable_grad():
        for batch_rows in batches(rows, tokens):
            batch = decoder.collate(batch_rows, pad)
            mask = positions.mask(batch.index, batch.prompt)
            if mask is not None and not (mask & (batch.index >= 0)).any(1).all():
                raise UserError(f"{type(positions).__name__} steers no token of a text that the method is fitted to")
            places = torch.tensor([row.example for row in batch_rows])
            shifts = {
                site: decoder.embedding.new_zeros(len(batch_rows), width, requires_grad=True)
                for site, width in widths.items()
            }
            edits = {site: (lambda h, shift=shift: h + shift[:, None]) for site, shift in shifts.items()}
            with decoder.steered(batch, edits, mask, 1):
                states = decoder.states(batch)
            last = batch.index.argmax(1)
            logits = decoder.logits(states[torch.arange(len(last), device=last.device), last])
            logp = logits.topk(min(OUTCOMES, logits.shape[1])).values.log_softmax(-1)
            for site, gradients in zip(shifts, weighted_gradients(logp, list(shifts.values())), strict=True):
                if site not in result:
                    result[site] = gradients.new_zeros(len(rows), *gradients.shape[1:])
                result[site][places.to(gradients.device)] = gradients
    return result


OUTCOMES = 16
"""Next tokens that count; the source of dual steering likewise takes the softmax of the likeliest ones only."""
