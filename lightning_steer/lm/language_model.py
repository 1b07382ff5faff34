"""A frozen Hugging Face decoder with its tokenizer: score continuations, read activations, generate, all steerable.

One class in one file, because its methods share the model, the tokenizer, the positions and the chat template.
The decoder alone, without text, is in :mod:`lightning_steer.lm.decoder`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, cast, overload

import torch
from torch import Tensor, nn

from lightning_steer.errors import UserError
from lightning_steer.hooks import Edit, capture, edit
from lightning_steer.lm.continuations import beginning, continuation, text_tokens
from lightning_steer.lm.decoder import Decoder, blocks, entry
from lightning_steer.lm.head import contiguous
from lightning_steer.lm.limits import TooLongError, why_shorter
from lightning_steer.lm.loading import load
from lightning_steer.lm.positions import AllTokens, GeneratedTokens, LastPromptToken, Positions
from lightning_steer.lm.reading import add_means
from lightning_steer.lm.row_order import check_order
from lightning_steer.lm.sensitivity import sensitivity
from lightning_steer.lm.sites import PARTS, heads, site_of, site_width
from lightning_steer.lm.text_drift import text_drift
from lightning_steer.lm.tokens import MultipleChoice, TokenRow, batches, rows_of
from lightning_steer.lm.tracking import follow, restricted
from lightning_steer.metrics.drift import TextDrift
from lightning_steer.networks.backbone import Backbone
from lightning_steer.numbers import ranged
from lightning_steer.resources import resource_path

__all__ = ["LLM", "PARTS", "blocks"]


SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")
"""Generation settings that name special tokens; the other settings of a model (sampling, lengths) are ignored."""


Conversation = Sequence[Mapping[str, str]]
"""The turns of a chat, each with its ``role`` and ``content``."""


class LLM(Backbone):
    """A decoder of any family, with the places in it that are steered.

    Args:
        llm: the model: its name on the Hugging Face hub, or a local folder in the same form.
        layers: the decoder blocks (layers) to steer, counted from 0, or from the end if negative: -1 is the last.
        part: what is steered of each: the block's output (the residual stream), its attention's or MLP's output, or
            the outputs of its attention heads, side by side.
        positions: which tokens are steered; None for all.
        read_positions: which tokens of a text a method is fitted to (their mean, if several); None for the last one.
            GeneratedTokens reads the continuation of a prompt.
        normalize: a continuation's score is the sum over its tokens (none), or their mean over tokens or UTF-8 bytes.
        chat: put every prompt into the tokenizer's chat template, as a user's turn.
        system: the chat's system message.
        dtype: ``auto`` takes the weights as they are stored.
        revision: branch, tag or commit on the hub.
        device_map: how one process spreads the model over its devices; not together with a distributed strategy.
        load_in_4bit: quantise while loading; needs bitsandbytes and a GPU.
        tokens_per_batch: tokens that run through the network at once, copies counted.
    """

    @ranged
    def __init__(
        self,
        llm: str,
        layers: int | list[int] = -1,
        part: Literal["block", "attention", "mlp", "heads"] = "block",
        positions: Positions | None = None,
        read_positions: Positions | None = None,
        normalize: Literal["none", "tokens", "bytes"] = "none",
        chat: bool = False,
        system: str | None = None,
        dtype: str = "auto",
        revision: str | None = None,
        device_map: str | None = None,
        load_in_4bit: bool = False,
        tokens_per_batch: int = 8192,
    ) -> None:
        super().__init__()
        if part not in PARTS or normalize not in ("none", "tokens", "bytes"):
            raise UserError(
                f"part is {', '.join(PARTS)}, normalize is none, tokens or bytes; not {part!r} and {normalize!r}"
            )
        if tokens_per_batch < 1 or layers == []:
            raise UserError(f"tokens_per_batch and layers must name at least one, not {tokens_per_batch} and {layers}")
        if system is not None and not chat:
            raise UserError("a system message is part of a chat: set chat, or leave system out")
        self.llm, self.layers, self.part = (
            resource_path(llm),
            [layers] if isinstance(layers, int) else list(layers),
            part,
        )
        self.positions, self.read_positions = positions or AllTokens(), read_positions or LastPromptToken()
        self.normalize = normalize
        self.chat, self.system = chat, system
        self.loading = (dtype, revision, device_map, load_in_4bit)
        self.tokens_per_batch = tokens_per_batch
        self.name, self.sites = llm, []
        self._decoder: Decoder | None = None
        self.tokenizer: Any = None

    # ---- loading

    def load(self) -> None:
        if self._decoder is not None:
            return
        model, tokenizer = load(self.llm, *self.loading)
        self.adopt(model, tokenizer)

    def adopt(self, model: nn.Module, tokenizer: Any) -> "LLM":
        """Use a model that is already in memory, as :meth:`load` uses the one it reads."""
        decoder = self._decoder = Decoder(model)
        self.tokenizer = tokenizer
        if self.loading[2] is None:  # Lightning moves it to its device; a device map has placed it already
            self.add_module("network", model)
        self.blocks, self.longest = decoder.blocks, decoder.longest
        requested, self.layers = self.layers, sorted({self._layer(layer) for layer in self.layers})
        if len(self.layers) < len(requested):
            raise UserError(f"layers {requested} name one layer twice: {self.llm} has {decoder.depth}, counted from 0")
        if self.chat and not tokenizer.chat_template:
            raise UserError(f"{self.llm} has no chat template: leave chat off, or take a model tuned for chats")
        self.sites = [self.site(layer) for layer in self.layers]
        special = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
        self.pad = next((t for t in special if t is not None and t < len(decoder.embedding)), 0)
        self.packs = decoder.verify(self.llm, self.pad)
        return self

    def _layer(self, layer: int) -> int:
        count = self.decoder.depth
        if not -count <= layer < count:
            raise UserError(f"layer {layer} does not exist: {self.llm} has {count}, counted from 0")
        return layer % count

    def site(self, layer: int) -> str:
        """Return the name of the module that is steered in a block."""
        return site_of(self.model, layer, self.part)

    def every_layer(self) -> "LLM":
        """Read and steer all blocks. The model must be loaded: its depth is unknown before."""
        self.layers = list(range(self.decoder.depth))
        self.sites = [self.site(layer) for layer in self.layers]
        return self

    @property
    def place(self) -> str:
        """Describe the layers and tokens that are steered, for reports."""
        which = ", ".join(f"{name}={value}" for name, value in vars(self.positions).items())
        tokens = f"{type(self.positions).__name__}({which})" if which else type(self.positions).__name__
        part = "" if self.part == "block" else f" ({self.part})"
        return f"layer{'s' * (len(self.layers) > 1)} {', '.join(map(str, self.layers))}{part}, {tokens}"

    @property
    def decoder(self) -> Decoder:
        """The model without its tokenizer; loaded when it is first used."""
        self.load()
        return cast(Decoder, self._decoder)

    @property
    def model(self) -> Any:
        """The Hugging Face model."""
        return self.decoder.model

    @property
    def device(self) -> torch.device:
        """The device that inputs must be on."""
        return self.decoder.embedding.device

    def check(self, data: Any) -> None:
        """Refuse strategies that spread a model, and a device map in one of several processes; any text can be read."""
        trainer = getattr(data, "trainer", None)
        if trainer is None:
            return
        self.check_precision(data)
        from lightning.pytorch.strategies import DDPStrategy, ParallelStrategy, SingleDeviceStrategy

        if not isinstance(trainer.strategy, (SingleDeviceStrategy, DDPStrategy)):
            raise UserError(
                f"models are read and steered whole, one on each device, not under {type(trainer.strategy).__name__}: "
                "use strategy ddp, or, for a model larger than a device, one process and the backbone's device_map"
            )
        if self.loading[2] is not None and (trainer.world_size > 1 or isinstance(trainer.strategy, ParallelStrategy)):
            raise UserError(
                f"device_map {self.loading[2]!r} spreads the model over the devices of one process: use it with "
                "trainer.devices 1 and without a distributed strategy, or leave it out"
            )

    def width(self, site: str) -> int:
        return site_width(self.model, site)

    def heads(self, site: str) -> int:
        return heads(self.model, site)

    # ---- scoring and reading

    def prompt(self, text: str | Conversation) -> str:
        """Return the prompt as the model reads it; raise ValueError for a conversation without a chat template."""
        if isinstance(text, str):
            if not self.chat:
                return text
            turns = [{"role": "system", "content": self.system}] if self.system else []
            turns.append({"role": "user", "content": text})
        elif self.chat:
            turns = list(text)
        else:
            raise UserError(f"a conversation needs a chat template: set chat, or give a text, not {str(text)[:60]}")
        try:
            return self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template raises what it likes, as a rule because of a system message
            raise UserError(f"the chat template of {self.llm} refuses {turns}: {error}") from error

    def _begun(self, question: MultipleChoice) -> str:
        """Return what is read before the options: without a prompt, the mark with which the model's texts begin."""
        return self.prompt(question.prompt) or (beginning(self.tokenizer) if question.choices else "")

    def rows(self, questions: Sequence[MultipleChoice]) -> list[TokenRow]:
        """Return the tokens of questions or texts; a chat template adds its own special tokens. Raises ValueError."""
        check_order(self.model)
        templated = [MultipleChoice(self._begun(q), q.choices) for q in questions]
        rows = [
            row for i, q in enumerate(templated) for row in rows_of(self.tokenizer, i, q, not self.chat, self.packs)
        ]
        for row in rows:
            self.check_length(max(row.position) + 1, templated[row.example].prompt)
        return rows

    def texts(self, inputs: Sequence[MultipleChoice]) -> list[TokenRow]:
        """Return the tokens of questions, each read whole as one text with its first option; raises ValueError."""
        texts = [self._begun(q) + "".join(q.choices[:1]) for q in inputs]
        rows = [
            rows_of(self.tokenizer, i, MultipleChoice(text), not self.chat, False)[0] for i, text in enumerate(texts)
        ]
        for row in rows:
            self.check_length(len(row.ids), texts[row.example])
        return rows

    def prompts(self, prompts: Sequence[str | Conversation], new: int) -> list[list[int]]:
        """Return the tokens of prompts that ``new`` generated tokens will follow; raises ValueError naming a prompt."""
        texts = [self.prompt(text) or beginning(self.tokenizer) for text in prompts]
        token_ids = text_tokens(self.tokenizer, texts, special=not self.chat)
        for text, ids in zip(texts, token_ids, strict=True):
            if not ids:
                raise UserError(f"the prompt {text!r} has no token that could be continued")
            self.check_length(len(ids), text, new)
        return token_ids

    def check_length(self, tokens: int, text: str, new: int = 0) -> None:
        """Raise TooLongError if a text and its new tokens, except the last, exceed what the model reads.

        Nothing is predicted from the last new token, so it is never read.
        """
        if tokens + max(new - 1, 0) > self.longest:
            needed = f"{tokens} tokens and {new} new ones" if new else f"{tokens} tokens"
            reads = f"the {self.longest} that {self.llm} reads{why_shorter(self.decoder.config)}"
            raise TooLongError(f"{needed} are more than {reads}: {text[:60]!r}")

    def activations(self, inputs: Sequence[MultipleChoice]) -> dict[str, Tensor]:
        """Return ``{site: [B, d]}`` of texts at ``read_positions``; layers above the last site are not computed.

        A question is read with its first option as one text; ``GeneratedTokens`` reads the tokens of the option.
        """
        check_order(self.model)
        rows, means = self.texts(inputs), self._empty_means(inputs)
        if isinstance(self.read_positions, GeneratedTokens):
            rows = self._with_prompts(rows, inputs)
        for batch_rows in batches(rows, self.tokens_per_batch):
            batch = self.decoder.collate(batch_rows, self.pad)
            with capture(self.model, self.sites) as captured:
                self.decoder.run_up_to(batch, self.sites[-1])
            add_means(means, captured, batch_rows, self.read_positions, batch, batch.index >= 0)
        return means

    def observe(self, inputs: Sequence[MultipleChoice]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return unsteered :meth:`scores` ``[B, options]`` and ``{site: [B, d]}`` of the prompts alone, in one pass."""
        rows, means = self.rows(inputs), self._empty_means(inputs)
        options = max(len(question.choices) for question in inputs)
        total = torch.zeros(1, len(inputs) * options, device=self.device)
        for batch_rows in batches(rows, self.tokens_per_batch):
            batch = self.decoder.collate(batch_rows, self.pad)
            with capture(self.model, self.sites) as captured:
                h = self.decoder.states(batch)
            total = total.index_add(1, *self.decoder.scored(h, batch_rows, options))
            real = (batch.index >= 0) & (batch.index < batch.prompt.unsqueeze(1))
            add_means(means, captured, batch_rows, self.read_positions, batch, real)
        return self._normalize(total, rows, inputs, options)[0], means

    def sensitivity(self, inputs: Sequence[MultipleChoice], prompts: bool = False) -> dict[str, Tensor]:
        check_order(self.model)
        rows = self.texts([MultipleChoice(q.prompt) for q in inputs] if prompts else inputs)
        if not prompts:
            rows = self._with_prompts(rows, inputs)
        widths = {site: self.width(site) for site in self.sites}
        return sensitivity(self.decoder, rows, widths, self.positions, self.pad, self.tokens_per_batch)

    def _with_prompts(self, rows: list[TokenRow], inputs: Sequence[MultipleChoice]) -> list[TokenRow]:
        """Say in rows of whole texts where the prompt of each ends and its first option begins."""
        split = [continuation(self.tokenizer, self._begun(q), q.choices[0], not self.chat) for q in inputs]
        return [row._replace(prompt=len(prefix)) for row, (prefix, _) in zip(rows, split, strict=True)]

    def _empty_means(self, inputs: Sequence[MultipleChoice]) -> dict[str, Tensor]:
        return {site: self.decoder.embedding.new_zeros(len(inputs), self.width(site)) for site in self.sites}

    def scores(
        self, inputs: Sequence[MultipleChoice], edits: Mapping[str, Edit] | None = None, copies: int = 1
    ) -> Tensor:
        """Return log-probabilities of the options ``[copies, B, options]``; -inf where a question has fewer options."""
        if not inputs or not all(question.choices for question in inputs):
            raise UserError(f"scores are of continuations: one of {len(inputs)} questions has none, or there is none")
        rows, options = self.rows(inputs), max(len(question.choices) for question in inputs)
        total = torch.zeros(copies, len(inputs) * options, device=self.device)
        for batch_rows in batches(rows, max(1, self.tokens_per_batch // copies)):
            batch = self.decoder.collate(batch_rows, self.pad)
            with self.decoder.steered(batch, edits, self.positions.mask(batch.index, batch.prompt), copies) as run:
                h = self.decoder.states(batch)
            total = total.index_add(1, *self.decoder.scored(h, batch_rows, options, run.place))
        return self._normalize(total, rows, inputs, options)

    def _normalize(
        self, total: Tensor, rows: Sequence[TokenRow], inputs: Sequence[MultipleChoice], options: int
    ) -> Tensor:
        """Return sums ``[copies, B * options]`` as ``[copies, B, options]`` in the unit of ``normalize``."""
        if self.normalize == "tokens":
            read = [row.example * options + option for row in rows for *_, option in row.reads]
            counts = torch.tensor(read).bincount(minlength=total.shape[1]).view(len(inputs), options)
        else:
            sizes = [[len(choice.encode()) if self.normalize == "bytes" else 1 for choice in q.choices] for q in inputs]
            counts = torch.tensor([[*row, *[0] * (options - len(row))] for row in sizes])
        total, counts = total.unflatten(1, counts.shape), counts.to(total.device)
        return torch.where(counts > 0, total / counts.clamp_min(1), -torch.inf)

    def logits(self, h: Tensor) -> Tensor:
        """Return vocabulary logits ``[m, V]`` (float32) of decoder states ``[m, d]``."""
        return self.decoder.logits(h)

    # ---- neutral text

    @torch.no_grad()
    def drift(self, texts: Sequence[str], edits: Mapping[str, Edit], copies: int = 1) -> TextDrift:
        """Return how the edits change the predictions for neutral texts.

        A text is read as a prompt; if the positions select no token of a prompt, as generated after its first token.
        Only tokens from the first steered one onward count.
        """
        rows = self.rows([MultipleChoice(text) for text in texts])
        return text_drift(self.decoder, rows, self.positions, edits, copies, self.pad, self.tokens_per_batch)

    # ---- generating

    @contextmanager
    def steered(self, edits: Mapping[str, Edit], prompt_lengths: Tensor | None = None) -> Iterator[None]:
        """Steer every use of the model inside the block, ``generate`` included, at its positions."""
        needed = not isinstance(self.positions, AllTokens)  # then only methods that decide for whole rows ask
        with follow(self.model, entry(self.model), prompt_lengths, needed) as tokens, ExitStack() as stack:
            edits_at_positions = {
                site: restricted(function, tokens, self.positions) for site, function in edits.items()
            }
            stack.enter_context(edit(self.model, edits_at_positions))
            yield

    @overload
    def generate(
        self, prompts: str, max_new_tokens: int = 64, *, edits: Mapping[str, Edit] | None = None, **settings: Any
    ) -> str: ...

    @overload
    def generate(
        self,
        prompts: Sequence[str | Conversation],
        max_new_tokens: int = 64,
        *,
        edits: Mapping[str, Edit] | None = None,
        **settings: Any,
    ) -> list[str]: ...

    @torch.no_grad()
    def generate(
        self,
        prompts: str | Sequence[str | Conversation],
        max_new_tokens: int = 64,
        *,
        edits: Mapping[str, Edit] | None = None,
        **settings: Any,
    ) -> str | list[str]:
        """Continue a prompt or several, greedily unless ``settings`` (of transformers' ``generate``) say otherwise.

        With ``chat`` a prompt of several may be a conversation, a list of turns with ``role`` and ``content``.
        Only the special tokens are taken from the model's own ``generation_config``.

        Returns:
            What follows the prompt; of several prompts a list, in their order.
        """
        if isinstance(prompts, str):
            return self.generate([prompts], max_new_tokens, edits=edits, **settings)[0]
        token_ids = self.continued(prompts, edits, max_new_tokens, **settings)
        return self.tokenizer.batch_decode(token_ids, skip_special_tokens=True)

    @torch.no_grad()
    def continued(
        self,
        prompts: Sequence[str | Conversation],
        edits: Mapping[str, Edit] | None,
        max_new_tokens: int,
        **settings: Any,
    ) -> list[list[int]]:
        """Return the tokens that :meth:`generate` writes after each prompt, up to the first that ends a text."""
        self.load()
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        if not prompts or max_new_tokens < 1:
            raise UserError(f"at least 1 prompt is continued, by 1 token, not {len(prompts)} by {max_new_tokens}")
        prompt_ids = {"input_ids": self.prompts(prompts, max_new_tokens)}
        encoded = self.tokenizer.pad(prompt_ids, return_tensors="pt", padding=True)
        ids, mask = encoded["input_ids"].to(self.device), encoded["attention_mask"].to(self.device)
        length = mask.sum(1)
        settings = {"do_sample": False, "pad_token_id": self.pad, "max_new_tokens": max_new_tokens, **settings}
        # with a static cache on a GPU transformers compiles the model, which then runs no hook that comes later
        settings.setdefault("disable_compile", True)
        saved = self.model.generation_config
        plain = self.model.generation_config = type(saved)(**{name: getattr(saved, name) for name in SPECIAL})
        try:
            with self.steered(edits or {}, length), contiguous(self.model):
                out = self.model.generate(input_ids=ids, attention_mask=mask, **settings)
        finally:
            self.model.generation_config = saved
        end = settings.get("eos_token_id", plain.eos_token_id)
        ends = end if isinstance(end, list) else [end]
        return [up_to(ends, row) for row in out[:, ids.shape[1] :].tolist()]


def up_to(ends: Sequence[int | None], ids: list[int]) -> list[int]:
    """Return tokens up to the first that ends a text, this one included."""
    return ids[: 1 + next((i for i, token in enumerate(ids) if token in ends), len(ids))]
