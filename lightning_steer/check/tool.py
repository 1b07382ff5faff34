"""What is checked, and what it is checked on: a library's hooks, a model, and a few rows of text."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property

import torch
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.hooks import capture
from lightning_steer.lm.continuations import continuation
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import AllTokens, Positions
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.lm.windows import LONGEST_WINDOW, SMALL_WINDOW, small_copy, windows

PROMPTS = ("The weather was cold and the", "Yes", "She looked at the old map, and then she", "One day in the town")
OPTIONS = (" sea", " small house", " no", " old tree", " the", " cat", " A", " Yes")
"""Continuations, of which those are scored that the tokenizer knows."""
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.06, torch.float16: 0.02}
"""Largest allowed difference of logits, as a share of their largest size, where bits may differ."""
LONGEST_ROW = 16
"""Tokens of a row that no window or character matters for: a tokenizer of single bytes makes more of every text."""


class Tool:
    """The hooks that are checked: steer, read, run a padded batch, score. This class uses this project's own."""

    def steer(
        self, llm: LLM, layer: int, vector: Tensor, strength: Tensor, positions: Positions, prompt: Tensor
    ) -> AbstractContextManager[None]:
        """Add ``strength [B] * vector [d]`` to a block's output at the chosen tokens; ``prompt [B]`` tokens each."""

        @contextmanager
        def within() -> Iterator[None]:
            previous, llm.positions = llm.positions, positions
            site = f"{llm.blocks}.{layer}"

            def add(h: Tensor) -> Tensor:
                beams = len(h) // len(strength)
                return h + strength.repeat_interleave(beams)[:, None, None] * vector

            try:
                with llm.steered({site: add}, prompt):
                    yield
            finally:
                llm.positions = previous

        return within()

    def read(self, llm: LLM, layer: int) -> AbstractContextManager[dict[str, Tensor]]:
        """A dictionary that holds ``h [B, T, d]`` of a block's output after a pass inside."""
        return capture(llm.model, [f"{llm.blocks}.{layer}"])

    def forward(self, llm: LLM, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits ``[B, T, V]`` of padded rows."""
        inputs = {"attention_mask": mask}
        if "position_ids" in inspect.signature(llm.model.forward).parameters:
            inputs["position_ids"] = (mask.cumsum(1) - 1).clamp_min(0)
        return llm.model(input_ids=ids, use_cache=False, **inputs).logits

    def score(self, llm: LLM, questions: Sequence[MultipleChoice]) -> Tensor:
        """Sum of log-probabilities ``[B, options]`` of continuations."""
        return llm.scores(questions)[0]


class Bench:
    """A model, a tool, and the rows that the laws are tried on."""

    def __init__(self, llm: LLM, tool: Tool, layer: int, labels: Sequence[str]) -> None:
        self.llm, self.tool, self.layer, self.labels = llm, tool, layer, labels
        self.choices = tuple(filter(self._is_known, OPTIONS))[:2]
        if not self.choices:
            raise UserError(f"the tokenizer of {llm.llm} knows none of the words {', '.join(OPTIONS)}")
        texts = [llm.tokenizer(text)["input_ids"][:LONGEST_ROW] for text in PROMPTS]
        self.rows = [torch.tensor(ids, device=llm.device) for ids in texts]
        generator = torch.Generator().manual_seed(0)
        with capture(llm.model, [f"{llm.blocks}.{layer}"]) as captured:
            llm.model(self.rows[0].unsqueeze(0))
        size = next(iter(captured.values())).float().norm(dim=-1).mean().item()
        direction = torch.randn(llm.width(""), generator=generator)
        self.vector = (size * direction / direction.norm()).to(llm.device, llm.model.dtype)
        self.sizes = windows(llm.decoder.config)
        self.tolerance = TOLERANCE.get(llm.model.dtype, 0.06)

    @cached_property
    def long(self) -> LLM:
        """A model whose windows are short enough to be passed: the model itself, or a small copy of it."""
        if max(self.sizes.values(), default=0) <= LONGEST_WINDOW:
            return self.llm
        return LLM(self.llm.llm).adopt(small_copy(self.llm.model), self.llm.tokenizer)

    def long_prompts(self) -> tuple[list[str], str]:
        """Prompts of several lengths, longer than every window where the model can read so far; and where they ran."""
        llm = self.long
        longest = max(windows(llm.decoder.config).values(), default=SMALL_WINDOW)
        prompts, words = [], " ".join(PROMPTS).split()
        for extra in (8, 40):
            count, prompt_words = int(max(4, min(longest + extra, llm.longest - 32))), words[:1]
            while len(llm.tokenizer(" ".join(prompt_words))["input_ids"]) < count:
                prompt_words.append(words[len(prompt_words) % len(words)])
            prompts.append(" ".join(prompt_words))
        sizes = ", ".join(f"{name} {size}" for name, size in self.sizes.items()) or "no window"
        if llm is self.llm:
            return prompts, sizes
        return prompts, f"{sizes}: on a copy of {llm.decoder.depth} layers with a window of {SMALL_WINDOW}"

    def _is_known(self, option: str) -> bool:
        try:
            return bool(continuation(self.llm.tokenizer, "The", option, True))
        except ValueError:
            return False

    @cached_property
    def baseline(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits ``[B, T, V]`` of the rows, padded on the right and not steered, and each block's output ``[B, T, d]``.

        Blocks up to the steered one, by name.
        """
        names = [f"{self.llm.blocks}.{i}" for i in range(self.layer + 1)]
        with capture(self.llm.model, names) as captured:
            logits = self.tool.forward(self.llm, *self.padded("right"))
        return logits, captured

    @cached_property
    def single_rows(self) -> list[Tensor]:
        """Logits ``[T, V]`` of each row by itself, steered by its own strength."""
        logits = []
        for i, row in enumerate(self.rows):
            with self.steered(self.strengths()[i : i + 1], prompt=self.lengths()[i : i + 1]):
                logits.append(self.llm.model(row.unsqueeze(0), use_cache=False).logits[0])
        return logits

    def padded(self, side: str, rows: Sequence[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """These rows side by side, all if none are named: ids and mask ``[B, T]``."""
        rows = self.rows if rows is None else rows
        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), self.llm.pad, device=self.llm.device)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            place = slice(longest - len(row), None) if side == "left" else slice(0, len(row))
            ids[i, place], mask[i, place] = row, 1
        return ids, mask

    def strengths(self, value: float = 1.0) -> Tensor:
        """A different strength for each row."""
        return value * (1 + torch.arange(len(self.rows), device=self.llm.device, dtype=self.vector.dtype)) / 2

    def lengths(self) -> Tensor:
        """Real tokens of each row."""
        return torch.tensor([len(row) for row in self.rows], device=self.llm.device)

    def steered(
        self, strength: Tensor, positions: Positions | None = None, prompt: Tensor | None = None
    ) -> AbstractContextManager:
        """Steer with the tool while the block runs."""
        lengths = self.lengths() if prompt is None else prompt
        return self.tool.steer(self.llm, self.layer, self.vector, strength, positions or AllTokens(), lengths)

    def close(self, a: Tensor, b: Tensor) -> tuple[bool, str]:
        """Compare logits up to rounding."""
        difference = float((a.float() - b.float()).abs().max() / b.float().abs().max().clamp_min(1e-6))
        return difference <= self.tolerance, f"largest difference {difference:.1e} of the logits' size"


def plain_score(llm: LLM, ids: list[int], count: int) -> float:
    """Log-probability of the last tokens, this many, in one forward pass of one row."""
    logp = llm.model(torch.tensor([ids], device=llm.device), use_cache=False).logits[0].float().log_softmax(-1)
    return sum(float(logp[k - 1, ids[k]]) for k in range(len(ids) - count, len(ids)))
