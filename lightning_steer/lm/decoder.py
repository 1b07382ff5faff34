"""A decoder of transformers without its tokenizer: its blocks, states and vocabulary head, and edits of its rows.

One class and one file: its methods, and the checks of :meth:`Decoder.verify`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from lightning_steer.errors import UserError
from lightning_steer.hooks import Edit, edit, fan_out
from lightning_steer.lm import head
from lightning_steer.lm.copies import Copies
from lightning_steer.lm.families import check_family, uncounted
from lightning_steer.lm.limits import longest_text
from lightning_steer.lm.packing import options_fit
from lightning_steer.lm.tokens import TokenBatch, TokenRow, collate
from lightning_steer.lm.windows import mask_forms, masks
from lightning_steer.row_tokens import RowTokens, announcing, reading


def blocks(model: nn.Module) -> str:
    """Return the name of the list of decoder blocks: the one ModuleList as long as the configuration has layers."""
    count = model.config.get_text_config().num_hidden_layers  # type: ignore[union-attr,operator]
    names = [name for name, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if len(names) > 1 and reads_more_than_text(model):  # towers for images or sound may have the same depth
        decoder = next(name for name, m in model.named_modules() if m is model.get_decoder())  # type: ignore[operator]
        names = [name for name in names if name.startswith(f"{decoder}.")]
    if len(names) != 1:
        raise UserError(
            f"{type(model).__name__} has {len(names)} lists of {count} layers ({', '.join(names)}), not one: its "
            "decoder blocks cannot be told"
        )
    return names[0]


def reads_more_than_text(model: nn.Module) -> bool:
    """Return whether the text decoder is part of a model that also reads images or sound."""
    return model.config.get_text_config() is not model.config  # type: ignore[union-attr,operator]


def entry(model: nn.Module) -> nn.Module:
    """Return the module that receives ids, padding mask and cache from the user, before masks are prepared."""
    if reads_more_than_text(model):
        return model.base_model  # type: ignore[return-value]
    return model.get_submodule(blocks(model).rpartition(".")[0])


class Decoder:
    """Read and steer the rows of a decoder. The caller owns the model.

    Args:
        model: a causal language model, as ``from_pretrained`` gives it.

    Raises:
        ValueError: its decoder blocks cannot be identified, or its family cannot be steered.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = model
        check_family(self.model.config, type(model).__name__)
        self.blocks = blocks(model)
        self.depth = len(self.model.get_submodule(self.blocks))
        config = self.config = self.model.config.get_text_config()
        self.width = int(config.hidden_size)
        self.form: tuple[str, ...] = next(iter(mask_forms(config)), ())
        self.longest = longest_text(config)

    @property
    def embedding(self) -> Tensor:
        """The token embeddings' weights ``[V, d]``."""
        return self.model.get_input_embeddings().weight

    @property
    def base(self) -> nn.Module:
        """The model without its vocabulary head; Llama 4's text decoder calls itself its own base."""
        inner = self.model.base_model
        return inner if inner is not self.model else self.model.get_submodule(self.blocks.rpartition(".")[0])

    def collate(self, rows: Sequence[TokenRow], pad: int) -> TokenBatch:
        """Return rows as one batch on the model's device."""
        return collate(rows, pad, self.model.dtype, self.embedding.device)

    def states(self, batch: TokenBatch) -> Tensor:
        """Return ``[R (x copies), T, d]``, the input of the vocabulary head."""
        settings: dict[str, Any] = {}
        if batch.mask is not None:
            attention_mask = masks(self.config, self.form, batch.mask, batch.position)
            settings = {"attention_mask": attention_mask, "position_ids": batch.position}
        with announcing(batch.index, batch.prompt):  # an edit around this call cannot see where the prompt ends
            return self.base(input_ids=batch.ids, use_cache=False, **settings)[0]

    def run_up_to(self, batch: TokenBatch, site: str) -> None:
        """Run rows up to a site, for hooks that capture activations; layers above it are not computed."""

        def stop(_: Tensor) -> Tensor:
            raise _Enough

        stopping: dict[str, Edit] = {site: stop}
        with suppress(_Enough), edit(self.model, stopping):
            self.states(batch)

    def logits(self, h: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Return the model's logits ``[m, V]`` float32 of states ``[m, d]``, or only those of n tokens, ``[m, n]``."""
        return head.logits(self.model, {self.base, self.model.get_submodule(self.blocks.rpartition(".")[0])}, h, tokens)

    def scored(
        self, h: Tensor, rows: Sequence[TokenRow], options: int, place: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the log-probabilities of all tokens to be scored in the rows.

        Args:
            h: ``[m, T, d]`` states of the rows that ran.
            rows: the R rows of the batch.
            options: number of options for each example.
            place: ``[copies, R]`` where each copy's rows are among those that ran; None for a single copy, all of them.

        Returns:
            The index of each token in ``[examples * options]``, and the values ``[copies, tokens]``.
        """
        slots = sorted({(r, slot) for r, row in enumerate(rows) for slot, _, _ in row.reads})
        number = {slot: i for i, slot in enumerate(slots)}
        reads = [
            (number[r, slot], token, row.example * options + option)
            for r, row in enumerate(rows)
            for slot, token, option in row.reads
        ]
        of_slot, token, index = torch.tensor(reads, device=h.device).T
        r, slot = torch.tensor(slots, device=h.device).T
        place = torch.arange(len(rows)).unsqueeze(0) if place is None else place
        needed, states_index = (place.to(h.device)[:, r] * h.shape[1] + slot).unique(return_inverse=True)
        states = h.flatten(0, 1)[needed]
        values = self._log_probabilities(states, states_index[:, of_slot].flatten(), token.repeat(len(place)))
        return index.to(self.embedding.device), values.view(len(place), -1)

    def _log_probabilities(self, h: Tensor, row: Tensor, token: Tensor) -> Tensor:
        """Return log-probabilities of ``token [n]`` after states ``h [m, d]`` at ``row [n]``, some at a time."""
        pieces, at_once = [], head.at_once(len(self.embedding))
        for start in range(0, len(h), at_once):
            index = ((row >= start) & (row < start + at_once)).nonzero().squeeze(1)
            logp = self.logits(h[start : start + at_once]).log_softmax(-1)
            pieces.append((index, logp[row[index] - start, token[index]]))
        places, values = (torch.cat(part) for part in zip(*pieces, strict=True))
        return torch.zeros_like(values).index_copy(0, places, values)

    def _block(self, site: str) -> int:
        """Return the number of the block that a site is in; raises ValueError if it is in none."""
        number = site.removeprefix(f"{self.blocks}.").split(".")[0]
        if not (site.startswith(f"{self.blocks}.") and number.isdecimal()):
            raise UserError(f"{site!r} is in none of the blocks {self.blocks}.0 to {self.blocks}.{self.depth - 1}")
        return int(number)

    @contextmanager
    def steered(
        self, batch: TokenBatch, edits: Mapping[str, Edit] | None, mask: Tensor | None, copies: int
    ) -> Iterator[Copies]:
        """Steer :meth:`states` of this batch inside the block, each copy by its own edit.

        The states are those of the rows that ran, and what is yielded says of which copies: one that no edit changes
        is not run again.

        Args:
            batch: the batch that will run.
            edits: by site; given ``h [copies, R, T, d]``, they return the same shape.
            mask: ``[R, T]`` the steered tokens; None for all.
            copies: number of copies of each row; layers below the first site are computed once.
        """
        if not edits:
            yield Copies(copies, len(batch.ids), batch.ids.device, shared=True)
            return
        number = {site: self._block(site) for site in edits}
        first = min(number.values())
        # an edit inside the first block needs all copies of the block's input
        nested = any(site != f"{self.blocks}.{i}" for site, i in number.items() if i == first)
        # inside a block the number of rows must not change, so copies leave the unsteered row between blocks only
        whole = all(site == f"{self.blocks}.{i}" for site, i in number.items())
        run = Copies(copies, len(batch.ids), batch.ids.device, shared=copies > 1 and whole)

        def on_rows(function: Edit) -> Edit:
            def steer(h: Tensor) -> Tensor:
                copied = run.split(h.reshape(-1, batch.ids.shape[1], h.shape[-1]))
                with reading(lambda: RowTokens(batch.index, batch.prompt, {})):
                    # of its own, as an edit may change its input in place: copies and unselected tokens are compared
                    steered = function(copied if copies == 1 and mask is None else copied.clone())
                if mask is not None:
                    steered = torch.where(mask.to(h.device)[None, :, :, None], steered, copied)
                return run.join(copied, steered).flatten(0, 3 - h.dim())

            return steer

        with ExitStack() as stack:
            if copies > 1:
                above = [f"{self.blocks}.{i}" for i in range(first if nested else first + 1, self.depth)]
                stack.enter_context(fan_out(self.model, above, len(batch.ids), lambda: run.rows, repeat_input=nested))
            stack.enter_context(edit(self.model, {site: on_rows(function) for site, function in edits.items()}))
            yield run

    @torch.no_grad()
    def verify(self, name: str, pad: int) -> bool:
        """Check on a few tokens that attention is causal, and that our states, cache and packed options are correct.

        Args:
            name: the model's name in errors.
            pad: a token to pad with.

        Returns:
            Whether several options can follow one prompt in one row.

        Raises:
            ValueError: the model does not compute what a decoder must.
        """
        ids = [i % len(self.embedding) for i in (5, 11, 7, 3, 9, 13)]
        ids_pair = torch.tensor([ids, [*ids[:5], ids[0]]], device=self.embedding.device)
        out = self.model(ids_pair, use_cache=True)
        expected, changed = out.logits.float()
        if not expected.isfinite().all():
            raise UserError(f"{name} gives logits that are not finite: damaged weights, or too narrow a dtype")
        kind = type(self.model).__name__
        if (changed - expected)[:5].abs().max() > 0.02 * expected.abs().max():
            raise UserError(f"{name} does not read from left to right (it is a {kind}): take a decoder")
        count = getattr(out.get("past_key_values"), "get_seq_length", lambda: None)
        if count() != len(ids):
            raise uncounted(self.config.model_type, name)
        plain = TokenRow(ids, list(range(6)), [0] * 6, 6, 0, [])
        logits = self.logits(self.states(self.collate([plain], pad))[0])
        scale = expected.abs().max().clamp_min(1e-6)
        if (logits - expected).abs().max() > 0.02 * scale:
            raise UserError(f"{kind} changes its logits after the vocabulary head in a way unknown here")
        rounding = float((logits - expected).abs().max() / scale)
        return options_fit(self, pad, max(1e-4, 4 * rounding))


class _Enough(Exception):
    """Stop the forward pass: all activations have been read."""
