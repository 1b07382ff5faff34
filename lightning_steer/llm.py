"""A frozen Hugging Face decoder with its tokenizer: score continuations, read activations, generate, all steerable."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_steer.hooks import Edit, capture, edit, fan_out
from lightning_steer.loading import load
from lightning_steer.metrics.drift import TextDrift, next_token_kl
from lightning_steer.models.backbone import Backbone
from lightning_steer.scope import All, Generated, Last, Scope, follow, scoped
from lightning_steer.shipped import shipped
from lightning_steer.tokens import Batch, Question, Row, batches, collate, continuation, rows_of

PARTS = {
    "block": (),
    "attention": ("self_attn", "attn", "attention", "self_attention"),
    "mlp": ("mlp", "feed_forward", "block_sparse_moe", "fc2"),
}
"""Names that families give to what can be steered inside a block; OPT's last linear layer is its MLP's output."""


def blocks(model: nn.Module) -> str:
    """Name of the list of decoder blocks: the one ModuleList with as many entries as the configuration has layers."""
    count = model.config.get_text_config().num_hidden_layers  # type: ignore[union-attr,operator]
    found = [name for name, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if len(found) != 1:
        raise ValueError(
            f"{type(model).__name__} has {len(found)} lists of {count} layers ({', '.join(found)}), not one: its "
            "decoder blocks cannot be told"
        )
    return found[0]


class LLM(Backbone):
    """A decoder of any family, with the places in it that are steered.

    Args:
        llm: a hub name or a local folder in Hugging Face form.
        layers: the decoder blocks that are steered, counted from 0; negative from the end.
        part: what is steered of each: the block's output (the residual stream), or its attention's or MLP's output.
        scope: which tokens are steered; null for all.
        read: which tokens of a text a method is fitted to (their mean, if several); null for the last one. Generated
            reads the continuation of a prompt.
        per: scores are sums over a continuation's tokens, or means over its tokens or its UTF-8 bytes.
        chat: put every prompt into the tokenizer's chat template, as a user's turn.
        system: the chat's system message.
        dtype: ``auto`` takes the weights as they are stored.
        revision: branch, tag or commit on the hub.
        device_map: how one process spreads the model over its devices; not together with a distributed strategy.
        load_in_4bit: quantise while loading; needs bitsandbytes and a GPU.
        tokens_per_batch: tokens that run through the network at once, copies counted.
    """

    def __init__(
        self,
        llm: str,
        layers: int | list[int] = -1,
        part: Literal["block", "attention", "mlp"] = "block",
        scope: Scope | None = None,
        read: Scope | None = None,
        per: Literal["sum", "token", "byte"] = "sum",
        chat: bool = False,
        system: str | None = None,
        dtype: str = "auto",
        revision: str | None = None,
        device_map: str | None = None,
        load_in_4bit: bool = False,
        tokens_per_batch: int = 8192,
    ) -> None:
        super().__init__()
        if part not in PARTS or per not in ("sum", "token", "byte"):
            raise ValueError(f"part is {', '.join(PARTS)} and per is sum, token or byte, not {part!r} and {per!r}")
        if tokens_per_batch < 1 or layers == []:
            raise ValueError(f"tokens_per_batch and layers must name at least one, not {tokens_per_batch} and {layers}")
        if system is not None and not chat:
            raise ValueError("a system message is part of a chat: set chat, or leave system out")
        self.llm, self.layers, self.part = shipped(llm), [layers] if isinstance(layers, int) else list(layers), part
        self.scope, self.reads, self.per = scope or All(), read or Last(), per
        self.chat, self.system = chat, system
        self.loading = (dtype, revision, device_map, load_in_4bit)
        self.tokens_per_batch = tokens_per_batch
        self.name, self.sites = llm, []
        self._held: list[nn.Module] = []
        self.tokenizer: Any = None

    # ---- loading

    def load(self) -> None:
        if self._held:
            return
        model, tokenizer = load(self.llm, *self.loading)
        self.adopt(model, tokenizer)

    def adopt(self, model: nn.Module, tokenizer: Any) -> "LLM":
        """Use a model that is there already, as :meth:`load` would use the one it reads."""
        self._held, self.tokenizer = [model], tokenizer
        if self.loading[2] is None:  # Lightning moves it to its device; a device map has placed it already
            self.add_module("network", model)
        self.blocks = blocks(model)
        count = len(model.get_submodule(self.blocks))  # type: ignore[arg-type]
        asked, self.layers = self.layers, sorted({self._layer(layer, count) for layer in self.layers})
        if len(self.layers) < len(asked):
            raise ValueError(f"layers {asked} name one layer twice: {self.llm} has {count}, counted from 0")
        if self.chat and not tokenizer.chat_template:
            raise ValueError(f"{self.llm} has no chat template: leave chat off, or take a model tuned for chats")
        self.sites = [self.site(layer) for layer in self.layers]
        config: Any = model.config.get_text_config()  # type: ignore[union-attr,operator]
        special = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
        embedded = self.model.get_input_embeddings().weight.shape[0]
        self.pad = next((t for t in special if t is not None and t < embedded), 0)
        self.cap = getattr(config, "final_logit_softcapping", None)
        self.longest = getattr(config, "max_position_embeddings", None) or math.inf
        self.packs = True
        self._agree_with_the_model()
        return self

    def _layer(self, layer: int, count: int) -> int:
        if not -count <= layer < count:
            raise ValueError(f"layer {layer} does not exist: {self.llm} has {count}, counted from 0")
        return layer % count

    def site(self, layer: int) -> str:
        """Module name of what is steered in a block."""
        block = f"{self.blocks}.{layer}"
        if self.part == "block":
            return block
        children = dict(self.model.get_submodule(block).named_children())
        for name in PARTS[self.part]:
            if name in children:
                return f"{block}.{name}"
        raise ValueError(
            f"{type(self.model).__name__} blocks have no {self.part} of their own; they hold {list(children)}"
        )

    @property
    def model(self) -> Any:
        """The Hugging Face model."""
        if not self._held:
            raise RuntimeError("the language model is not loaded yet: call load() first")
        return self._held[0]

    @property
    def device(self) -> torch.device:
        """Where the input goes."""
        return self.model.get_input_embeddings().weight.device

    def check(self, data: Any) -> None:
        """Any text can be read; refused is a device map where each process has a model of its own."""
        trainer = getattr(data, "trainer", None)
        if self.loading[2] is not None and trainer is not None:
            from lightning.pytorch.strategies import ParallelStrategy

            if trainer.world_size > 1 or isinstance(trainer.strategy, ParallelStrategy):
                raise ValueError(
                    f"device_map {self.loading[2]!r} spreads the model over the devices of one process: use it with "
                    "trainer.devices 1 and without a distributed strategy, or leave it out"
                )

    def width(self, site: str) -> int:
        return int(self.model.config.get_text_config().hidden_size)

    # ---- scoring and reading

    def prompt(self, text: str) -> str:
        """The prompt as the model is given it."""
        if not self.chat:
            return text
        turns = [{"role": "system", "content": self.system}] if self.system else []
        turns.append({"role": "user", "content": text})
        try:
            return self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template raises what it likes, as a rule because of a system message
            raise ValueError(f"the chat template of {self.llm} refuses {turns}: {error}") from error

    def rows(self, questions: Sequence[Question]) -> list[Row]:
        """Tokens of questions or texts, a chat template bringing its own special ones; raises ValueError."""
        asked = [Question(self.prompt(q.prompt), q.options) for q in questions]
        found = [row for i, q in enumerate(asked) for row in rows_of(self.tokenizer, i, q, not self.chat, self.packs)]
        for row in found:
            self._check_length(max(row.position) + 1, asked[row.example].prompt)
        return found

    def _check_length(self, tokens: int, text: str) -> None:
        if tokens > self.longest:
            raise ValueError(f"{tokens} tokens are more than the {self.longest} that {self.llm} reads: {text[:60]!r}")

    def activations(self, inputs: Sequence[Question]) -> dict[str, Tensor]:
        """``{site: [B, d]}`` of texts, at the tokens to be read; what lies above the last site is not computed.

        A question is read with its first option, as one text; ``Generated`` reads what the option has added.
        """
        texts, found = [self.prompt(q.prompt) + "".join(q.options[:1]) for q in inputs], self._nothing(inputs)
        rows = [rows_of(self.tokenizer, i, Question(text), not self.chat, False)[0] for i, text in enumerate(texts)]
        for row in rows:
            self._check_length(len(row.ids), texts[row.example])
        if isinstance(self.reads, Generated):
            parts = [continuation(self.tokenizer, self.prompt(q.prompt), q.options[0], not self.chat) for q in inputs]
            rows = [row._replace(prompt=len(prefix)) for row, (prefix, _) in zip(rows, parts, strict=True)]
        for part in batches(rows, self.tokens_per_batch):
            batch = self._collate(part)
            with capture(self.model, self.sites) as seen, _stop_after(self.model, self.sites[-1]):
                self._decoder(batch)
            self._gather(found, seen, part, self.reads.mask(batch.index, batch.prompt), batch.index >= 0)
        return found

    def observe(self, inputs: Sequence[Question]) -> tuple[Tensor, dict[str, Tensor]]:
        """``[B, options]`` as :meth:`scores` unsteered, and ``{site: [B, d]}`` of the prompts alone, in one pass."""
        rows, found = self.rows(inputs), self._nothing(inputs)
        options = max(len(question.options) for question in inputs)
        total = torch.zeros(1, len(inputs) * options, device=self.device)
        for part in batches(rows, self.tokens_per_batch):
            batch = self._collate(part)
            with capture(self.model, self.sites) as seen:
                h = self._decoder(batch)
            total = total.index_add(1, *self._read(h.unsqueeze(0), part, options))
            real = (batch.index >= 0) & (batch.index < batch.prompt.unsqueeze(1))
            self._gather(found, seen, part, self.reads.mask(batch.index, batch.prompt), real)
        return self._per(total, inputs, options)[0], found

    def _nothing(self, inputs: Sequence[Question]) -> dict[str, Tensor]:
        empty = self.model.get_input_embeddings().weight.new_zeros
        return {site: empty(len(inputs), self.width(site)) for site in self.sites}

    def _gather(
        self, found: dict[str, Tensor], seen: dict[str, Tensor], part: Sequence[Row], mask: Tensor | None, real: Tensor
    ) -> None:
        """Put the mean over each row's tokens to be read where its example stands."""
        mask = real if mask is None else mask & real
        if not mask.any(1).all():
            raise ValueError(f"{type(self.reads).__name__} picks no token to read in example {part[0].example}")
        examples = torch.tensor([row.example for row in part], device=mask.device)
        for site, h in seen.items():
            weight = (mask / mask.sum(1, keepdim=True)).to(h.dtype)
            h = weight.unsqueeze(1) @ h.reshape(*real.shape, -1)
            found[site] = found[site].index_copy(0, examples.to(h.device), h.squeeze(1))

    def scores(self, inputs: Sequence[Question], edits: Mapping[str, Edit] | None = None, copies: int = 1) -> Tensor:
        """``[copies, B, options]`` log-probabilities of the continuations; -inf where a question has fewer options."""
        if not inputs or not all(question.options for question in inputs):
            raise ValueError(f"scores are of continuations: one of {len(inputs)} questions has none, or there is none")
        rows, options = self.rows(inputs), max(len(question.options) for question in inputs)
        total = torch.zeros(copies, len(inputs) * options, device=self.device)
        for part in batches(rows, max(1, self.tokens_per_batch // copies)):
            batch = self._collate(part)
            with self._steered(batch, edits, copies):
                h = self._decoder(batch)
            h = h.unflatten(0, (-1, len(part))).expand(copies, -1, -1, -1)
            total = total.index_add(1, *self._read(h, part, options))
        return self._per(total, inputs, options)

    def _per(self, total: Tensor, inputs: Sequence[Question], options: int) -> Tensor:
        """Sums ``[copies, B * options]`` as ``[copies, B, options]`` in the unit of ``per``."""
        total = total.unflatten(1, (len(inputs), options))
        counts = torch.tensor([[self._count(q, i) for i in range(options)] for q in inputs], device=total.device)
        return torch.where(counts > 0, total / counts.clamp_min(1), -torch.inf)

    def _count(self, question: Question, i: int) -> int:
        if i >= len(question.options):
            return 0
        if self.per == "token":
            return len(self.rows([Question(question.prompt, (question.options[i],))])[0].reads)
        return len(question.options[i].encode()) if self.per == "byte" else 1

    def _collate(self, rows: Sequence[Row]) -> Batch:
        return collate(rows, self.pad, self.model.dtype, self.device)

    def _decoder(self, batch: Batch) -> Tensor:
        """``[R (x copies), T, d]`` the decoder's output, just before the vocabulary head."""
        kept = {} if batch.mask is None else {"attention_mask": batch.mask, "position_ids": batch.position}
        try:
            return self.model.base_model(input_ids=batch.ids, use_cache=False, **kept)[0]
        except _Enough:
            return torch.empty(0)

    def _read(self, h: Tensor, rows: Sequence[Row], options: int) -> tuple[Tensor, Tensor]:
        """Where in ``[B * options]`` each scored token's log-probability goes, and the values ``[copies, tokens]``."""
        slots = sorted({(r, slot) for r, row in enumerate(rows) for slot, _, _ in row.reads})
        number = {slot: i for i, slot in enumerate(slots)}
        reads = [
            (number[r, slot], token, row.example * options + option)
            for r, row in enumerate(rows)
            for slot, token, option in row.reads
        ]
        of_slot, token, place = torch.tensor(reads, device=h.device).T
        r, slot = torch.tensor(slots, device=h.device).T
        picked = h[:, r, slot].flatten(0, 1)
        at = of_slot + len(slots) * torch.arange(len(h), device=h.device).unsqueeze(1)
        return place.to(self.device), self._log_probabilities(picked, at.flatten(), token.repeat(len(h))).view(
            len(h), -1
        )

    def _log_probabilities(self, h: Tensor, row: Tensor, token: Tensor, at_once: int = 1024) -> Tensor:
        """Log-probability of ``token [n]`` after the states ``h [m, d]`` at ``row [n]``; the head a piece at a time."""
        found = []
        for start in range(0, len(h), at_once):
            own = ((row >= start) & (row < start + at_once)).nonzero().squeeze(1)
            logp = self.logits(h[start : start + at_once]).log_softmax(-1)
            found.append((own, logp[row[own] - start, token[own]]))
        where, values = (torch.cat(part) for part in zip(*found, strict=True))
        return torch.zeros_like(values).index_copy(0, where, values)

    def logits(self, h: Tensor) -> Tensor:
        """Vocabulary logits ``[m, V]`` float32 of decoder states ``[m, d]``."""
        logits = self.model.get_output_embeddings()(h).float()
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)

    @contextmanager
    def _steered(self, batch: Batch, edits: Mapping[str, Edit] | None, copies: int) -> Iterator[None]:
        if not edits:
            yield
            return
        first = min(int(site.removeprefix(f"{self.blocks}.").split(".")[0]) for site in edits)
        count = len(self.model.get_submodule(self.blocks))
        mask = self.scope.mask(batch.index, batch.prompt)

        def on_rows(function: Edit) -> Edit:
            def steer(h: Tensor) -> Tensor:
                split = h.reshape(-1, *batch.ids.shape, h.shape[-1]).expand(copies, -1, -1, -1)
                new = function(split)
                if mask is not None:
                    new = torch.where(mask.to(h.device)[None, :, :, None], new, split)
                return new.flatten(0, 4 - h.dim())

            return steer

        with ExitStack() as stack:
            if copies > 1:
                whole = self.part == "block"
                layers = [f"{self.blocks}.{i}" for i in range(first + whole, count)]
                stack.enter_context(fan_out(self.model, layers, copies, repeat_input=not whole))
            stack.enter_context(edit(self.model, {site: on_rows(function) for site, function in edits.items()}))
            yield

    # ---- neutral text

    @torch.no_grad()
    def drift(self, texts: Sequence[str], edits: Mapping[str, Edit], copies: int = 1) -> TextDrift:
        """What the edits do to texts that they are not about.

        A text is read as a prompt; where the scope picks no token of a prompt, as generated after its first token.
        Only tokens from the first steered one on count.
        """
        rows = self.rows([Question(text) for text in texts])
        longest = max(len(row.ids) for row in rows)
        kl = torch.full((copies, len(rows), longest), torch.nan, dtype=torch.float64)
        logp = torch.zeros(copies + 1, len(rows), dtype=torch.float64)
        tokens = torch.zeros(len(rows))
        for part in batches(rows, max(1, self.tokens_per_batch // (copies + 1))):
            batch = self._collate(part)
            if self._picked(batch).sum() == 0:
                batch = batch._replace(prompt=torch.ones_like(batch.prompt))
            plain = self._decoder(batch)
            with self._steered(batch, edits, copies):
                steered = self._decoder(batch)
            steered = steered.unflatten(0, (-1, len(part))).expand(copies, -1, -1, -1)
            r, t = (self._picked(batch).cumsum(1).gt(0) & (batch.index >= 0)).nonzero().T
            following = torch.cat([batch.ids[:, 1:], batch.ids[:, :1]], 1)[r, t]
            followed = torch.cat([batch.index[:, 1:] > 0, batch.index[:, :1] < 0], 1)[r, t].cpu()
            example = torch.tensor([row.example for row in part])[r.cpu()]
            tokens.index_add_(0, example, followed.float())
            base = self.logits(plain[r, t]).log_softmax(-1)
            for i, h in enumerate([plain, *steered]):
                after = base if i == 0 else self.logits(h[r, t]).log_softmax(-1)
                said = after.gather(1, following.unsqueeze(1)).squeeze(1).cpu().double()
                logp[i].index_add_(0, example, torch.where(followed, said, 0.0))
                if i:
                    kl[i - 1, example, t.cpu()] = next_token_kl(base, after).cpu().double()
        return TextDrift(kl, logp[0], logp[1:], tokens)

    def _picked(self, batch: Batch) -> Tensor:
        mask = self.scope.mask(batch.index, batch.prompt)
        return (batch.index >= 0) if mask is None else mask & (batch.index >= 0)

    # ---- generating

    @contextmanager
    def steered(self, edits: Mapping[str, Edit], prompt_lengths: Tensor | None = None) -> Iterator[None]:
        """While the block runs, every use of the model, ``generate`` too, is steered on the tokens in scope."""
        if isinstance(self.scope, All):  # where the tokens stand does not matter
            with edit(self.model, edits):
                yield
            return
        decoder = self.model.get_submodule(self.blocks.rpartition(".")[0])
        with follow(decoder, prompt_lengths) as tokens, ExitStack() as stack:
            within = {site: scoped(function, tokens, self.scope) for site, function in edits.items()}
            stack.enter_context(edit(self.model, within))
            yield

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[str], edits: Mapping[str, Edit] | None = None, max_new_tokens: int = 64, **settings: Any
    ) -> list[str]:
        """Continue prompts, greedily unless ``settings`` (as of transformers' ``generate``) say otherwise."""
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        texts = [self.prompt(text) for text in prompts]
        if not texts or max_new_tokens < 1:
            raise ValueError(f"at least 1 prompt is continued, by 1 token, not {len(texts)} by {max_new_tokens}")
        encoded = self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=not self.chat)
        ids, mask = encoded["input_ids"].to(self.device), encoded["attention_mask"].to(self.device)
        length = mask.sum(1)
        if not length.all():
            raise ValueError(f"the prompt {texts[int(length.argmin())]!r} has no token that could be continued")
        self._check_length(int(length.max()) + max_new_tokens, texts[int(length.argmax())])
        settings = {"do_sample": False, "pad_token_id": self.pad, "max_new_tokens": max_new_tokens, **settings}
        with self.steered(edits or {}, length):
            out = self.model.generate(input_ids=ids, attention_mask=mask, **settings)
        return self.tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)

    # ---- trust, but verify

    @torch.no_grad()
    def _agree_with_the_model(self) -> None:
        """See on a few tokens that nothing looks ahead, and that our vocabulary head and packed options are right."""
        vocabulary = self.model.get_input_embeddings().weight.shape[0]
        ids = [i % vocabulary for i in (5, 11, 7, 3, 9, 13)]
        both = torch.tensor([ids, [*ids[:5], ids[0]]], device=self.device)
        expected, other = self.model(both).logits.float()
        if not expected.isfinite().all():
            raise ValueError(
                f"{self.llm} gives logits that are not finite: its weights are damaged, or its dtype is too narrow"
            )
        if (other - expected)[:5].abs().max() > 0.02 * expected.abs().max():
            raise ValueError(
                f"{self.llm} does not read from left to right (it is a {type(self.model).__name__}): take a decoder"
            )
        plain = Row(ids, list(range(6)), [0] * 6, 6, 0, [])
        found = self.logits(self._decoder(self._collate([plain]))[0])
        scale = expected.abs().max().clamp_min(1e-6)
        if (found - expected).abs().max() > 0.02 * scale:
            raise ValueError(
                f"{type(self.model).__name__} changes its logits after the vocabulary head in a way unknown here"
            )
        packed = Row([*ids[:4], ids[5], *ids[4:]], [0, 1, 2, 3, 4, 4, 5], [0, 0, 0, 0, 1, 2, 2], 4, 0, [])
        try:
            beside = self.logits(self._decoder(self._collate([packed]))[0, [0, 1, 2, 3, 5, 6]])
            self.packs = bool((beside - expected).abs().max() <= max(1e-4, 4 * (found - expected).abs().max()) * scale)
        except Exception:  # families whose positions or biases cannot be given token by token
            self.packs = False


class _Enough(Exception):
    """What was to be read has been read."""


@contextmanager
def _stop_after(model: nn.Module, site: str) -> Iterator[None]:
    def stop(h: Tensor) -> Tensor:
        raise _Enough

    hooks: Callable[..., Any] = edit
    with hooks(model, {site: stop}):
        yield
