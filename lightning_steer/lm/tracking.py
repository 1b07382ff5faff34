"""Follow the tokens of every forward pass, so that an edit finds the tokens that a rule picks.

Independent of padding, cache, beams and the pieces in which a prompt arrives. Tokens are counted from the first real
one of their row; padding has the index -1.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lightning_steer import row_tokens
from lightning_steer.errors import UserError
from lightning_steer.lm.positions import AllTokens, LastPromptToken, Positions
from lightning_steer.row_tokens import RowTokens


class TokenTracker:
    """Positions of the tokens in the current forward pass, kept up to date by :func:`follow`."""

    def __init__(self, prompt_lengths: Tensor | None) -> None:
        self.given, self.prompt = prompt_lengths, prompt_lengths
        self.index: Tensor | None = None
        self.generating = self.in_doubt = False
        self.prompts: int | None = None  # number of prompts of the running generate; each may have several beams
        self.first: Tensor | None = None  # the latest prompt
        self.unreadable: ValueError | None = None  # why the tokens of this pass are not known
        self.decided: dict[Any, dict[Any, Tensor]] = {}  # by the edit: what methods decided for the rows that run
        self.known: RowTokens | None = None  # what was announced of this pass
        self.of_cache: WeakKeyDictionary[Any, tuple[Tensor | None, Any]] = WeakKeyDictionary()  # prompt and decided
        self.stray = False  # this pass goes on from a cache that was filled elsewhere

    def mask(self, positions: Positions) -> Tensor | None:
        """Return the selected tokens of this pass, ``[B, T]`` bool, or None for all."""
        if self.known is not None:
            return positions.mask(self.known.index, self.known.prompt)
        if self.index is None or self.prompt is None:
            if isinstance(positions, AllTokens):
                return None
            raise RuntimeError("the decoder has not run since its tokens are followed: nothing is known of them yet")
        if self.in_doubt and positions.needs_prompt:
            raise UserError(
                "this call begins with all tokens of the call before and has no cache, so it may be a text that grows "
                "or another prompt: say with prompt_lengths where the prompt ends, or use generate"
            )
        if self.stray and positions.needs_prompt:
            raise UserError(
                "this call goes on from a cache that was filled outside this block, or copied, so it is not known "
                "where its prompt ends: say it with prompt_lengths, or read the prompt inside the block"
            )
        return positions.mask(self.index, self.per_row(self.prompt, len(self.index)))

    def rows(self, edit: object) -> RowTokens:
        """Return the rows of this pass, with what an edit's methods decided in earlier passes over them."""
        if self.unreadable is not None:
            raise self.unreadable
        if self.known is not None:
            return self.known._replace(decided=self.decided.setdefault(edit, {}))
        self.mask(LastPromptToken())  # raises if it is not known where the prompt ends
        index, prompt = cast(Tensor, self.index), cast(Tensor, self.prompt)
        return RowTokens(index, self.per_row(prompt, len(index)), self.decided.setdefault(edit, {}))

    def per_row(self, values: Tensor, rows: int) -> Tensor:
        """Expand ``[B] -> [rows]``: one value for each row or, inside ``generate``, for all beams of each prompt.

        Raises:
            ValueError: the number of values is neither that of the rows nor of the prompts.
        """
        if rows == len(values):
            return values
        if self.prompts == len(values) and rows % len(values) == 0:
            return values.repeat_interleave(rows // len(values))
        raise UserError(f"{len(values)} values cannot be given to {rows} rows: give one for each row or prompt")

    def see_if_readable(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Record the tokens of a call of the decoder, or why they are not known: not every edit asks for them."""
        self.index, self.unreadable = None, None
        try:
            self.see(args, kwargs)
        except ValueError as error:
            self.unreadable = error

    def see(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Record the tokens of a call of the decoder."""
        self.known = row_tokens.announced()
        if self.known is not None:
            self.index, self.decided = self.known.index, {}
            return
        ids: Any = kwargs.get("input_ids", args[0] if args else None)
        ids = kwargs.get("inputs_embeds") if ids is None else ids
        cache = kwargs.get("past_key_values")
        cached = int(cache.get_seq_length()) if cache is not None else 0
        rows, length = ids.shape[:2]
        padding = kwargs.get("attention_mask")
        if isinstance(padding, Tensor) and padding.dim() == 2:
            real = padding[:, : cached + length].long()
            index = torch.where(real == 1, real.cumsum(1) - 1, -1)[:, -length:]
        elif padding is None:
            index = (torch.arange(length, device=ids.device) + cached).expand(rows, -1)
        else:
            raise UserError(
                "tokens cannot be told from padding in a prepared attention mask: pass the plain [B, T] one"
            )
        if self.given is None and cached == 0:
            self._begin(ids, index)
        elif self.given is None and length > 1:
            raise UserError("the prompt arrives in pieces: say with prompt_lengths where it ends")
        self.index = index
        self.stray = cached > 0 and self.given is None and cache not in self.of_cache
        if cached == 0:  # the rows are read from their beginning
            self.decided = {}
        elif cache in self.of_cache:
            self.prompt, self.decided = self.of_cache[cache]

    def keep(self, kwargs: dict[str, Any], output: Any) -> None:
        """Remember what is known of the rows that a call has left in a cache, for calls that go on from it."""
        values = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple) else ()
        for cache in (kwargs.get("past_key_values"), *values):
            if hasattr(cache, "get_seq_length"):
                self.of_cache[cache] = (self.prompt, self.decided)

    def _begin(self, ids: Tensor, index: Tensor) -> None:
        """Record a prompt, unless these tokens are a prompt with its generated tokens, without a cache."""
        if self.generating and self.first is not None:
            return
        previous = self.first
        grows = previous is not None and len(previous) == len(ids) and previous.shape[1] < ids.shape[1]
        self.in_doubt = bool(grows and torch.equal(ids[:, : previous.shape[1]], previous))  # type: ignore[union-attr]
        if not self.in_doubt:
            self.prompt, self.first = index.amax(1) + 1, ids

    @contextmanager
    def within_generate(self, prompts: int | None) -> Iterator[None]:
        """Treat the first call inside the block as a prompt and later calls as its continuation, cached or not."""
        self.generating, self.first, self.prompts = True, None, prompts
        try:
            yield
        finally:
            self.generating, self.first, self.prompts = False, None, None


@contextmanager
def follow(
    model: nn.Module, decoder: nn.Module, prompt_lengths: Tensor | None = None, needed: bool = True
) -> Iterator[TokenTracker]:
    """Track the tokens of every call of ``decoder`` while the block runs.

    Without a cache every step of ``generate`` reads the prompt again and one more token. So ``model.generate`` is
    wrapped inside the block, to distinguish its steps from new prompts.

    Args:
        model: the model whose ``generate`` may be called.
        decoder: the module that owns the decoder layers and is given ids, mask and cache.
        prompt_lengths: ``[B]`` real tokens of each row's prompt; None treats the first call as the whole prompt.
        needed: whether a call is refused whose tokens cannot be told; else only an edit that asks for them fails.
    """
    tokens = TokenTracker(prompt_lengths)
    see = tokens.see if needed else tokens.see_if_readable
    handle = decoder.register_forward_pre_hook(lambda _module, args, kwargs: see(args, kwargs), with_kwargs=True)
    hook = decoder.register_forward_hook(
        lambda _module, _args, kwargs, output: tokens.keep(kwargs, output), with_kwargs=True
    )
    own_generate, original_generate = vars(model).get("generate"), getattr(model, "generate", None)

    def followed(*args: Any, **kwargs: Any) -> Any:
        ids: Any = next((kwargs[name] for name in ("input_ids", "inputs", "inputs_embeds") if name in kwargs), None)
        ids = args[0] if ids is None and args else ids
        with tokens.within_generate(len(ids) if isinstance(ids, Tensor) else None):
            return original_generate(*args, **kwargs)  # type: ignore[misc]

    try:
        if original_generate is not None:
            vars(model)["generate"] = followed
        yield tokens
    finally:
        handle.remove()
        hook.remove()
        vars(model).pop("generate", None)
        if own_generate is not None:
            vars(model)["generate"] = own_generate


def restricted(
    function: Callable[[Tensor], Tensor], tokens: TokenTracker, positions: Positions
) -> Callable[[Tensor], Tensor]:
    """Apply the edit only to the selected tokens; all others stay equal bit for bit."""

    def edit(h: Tensor) -> Tensor:
        mask = tokens.mask(positions)
        with row_tokens.reading(lambda: tokens.rows(edit)):
            if mask is None:
                return function(h)
            rows_first = h.reshape(*mask.shape, h.shape[-1])  # a module may see rows and tokens in one dimension
            steered = function(rows_first.clone())  # an edit may change its input in place
            return torch.where(mask.to(h.device).unsqueeze(-1), steered, rows_first).reshape(h.shape)

    return edit
