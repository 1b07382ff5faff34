"""What is checked, and what it is checked on: a library's hooks, a model, and a few rows of text."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

from lightning_steer.continuations import continuation
from lightning_steer.hooks import capture
from lightning_steer.llm import LLM
from lightning_steer.scope import All, Scope, per_row
from lightning_steer.tokens import Question

PROMPTS = ("The weather was cold and the", "Yes", "She looked at the old map, and then she", "One day in the town")
OPTIONS = (" sea", " small house", " no", " old tree", " the", " cat", " A", " Yes")
"""Continuations, of which those are scored that the tokenizer knows."""
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.06, torch.float16: 0.02}
"""Largest allowed difference of logits, as a share of their largest size, where bits may differ."""


class Tool:
    """What is checked: how a library steers, reads, runs a padded batch and scores. This one is ours."""

    def steer(
        self, llm: LLM, layer: int, vector: Tensor, strength: Tensor, scope: Scope, prompt: Tensor
    ) -> AbstractContextManager[None]:
        """Add ``strength [B] * vector [d]`` to a block's output at the tokens in scope; ``prompt [B]`` tokens each."""

        @contextmanager
        def within() -> Iterator[None]:
            before, llm.scope = llm.scope, scope
            site = f"{llm.blocks}.{layer}"
            try:
                with llm.steered({site: lambda h: h + per_row(strength, len(h))[:, None, None] * vector}, prompt):
                    yield
            finally:
                llm.scope = before

        return within()

    def read(self, llm: LLM, layer: int) -> AbstractContextManager[dict[str, Tensor]]:
        """A dictionary that holds ``h [B, T, d]`` of a block's output after a pass inside."""
        return capture(llm.model, [f"{llm.blocks}.{layer}"])

    def forward(self, llm: LLM, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits ``[B, T, V]`` of padded rows."""
        kept = {"attention_mask": mask}
        if "position_ids" in inspect.signature(llm.model.forward).parameters:
            kept["position_ids"] = (mask.cumsum(1) - 1).clamp_min(0)
        return llm.model(input_ids=ids, use_cache=False, **kept).logits

    def score(self, llm: LLM, questions: Sequence[Question]) -> Tensor:
        """Sum of log-probabilities ``[B, options]`` of continuations."""
        return llm.scores(questions)[0]


class Bench:
    """A model, a tool, and the rows that the laws are tried on."""

    def __init__(self, llm: LLM, tool: Tool, layer: int, labels: Sequence[str]) -> None:
        self.llm, self.tool, self.layer, self.labels = llm, tool, layer, labels
        self.options = tuple(filter(self._is_known, OPTIONS))[:3]
        if not self.options:
            raise ValueError(f"the tokenizer of {llm.llm} knows none of the words {', '.join(OPTIONS)}")
        self.rows = [torch.tensor(llm.tokenizer(text)["input_ids"], device=llm.device) for text in PROMPTS]
        generator = torch.Generator().manual_seed(0)
        with capture(llm.model, [f"{llm.blocks}.{layer}"]) as seen:
            llm.model(self.rows[0].unsqueeze(0))
        size = next(iter(seen.values())).float().norm(dim=-1).mean().item()
        direction = torch.randn(llm.width(""), generator=generator)
        self.vector = (size * direction / direction.norm()).to(llm.device, llm.model.dtype)
        self.tolerance = TOLERANCE.get(llm.model.dtype, 0.06)

    def _is_known(self, option: str) -> bool:
        try:
            return bool(continuation(self.llm.tokenizer, "The", option, True))
        except ValueError:
            return False

    def padded(self, side: str) -> tuple[Tensor, Tensor]:
        """All rows side by side: ids and mask ``[B, T]``."""
        longest = max(map(len, self.rows))
        ids = torch.full((len(self.rows), longest), self.llm.pad, device=self.llm.device)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(self.rows):
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
        self, strength: Tensor, scope: Scope | None = None, prompt: Tensor | None = None
    ) -> AbstractContextManager:
        """The tool at work."""
        given = self.lengths() if prompt is None else prompt
        return self.tool.steer(self.llm, self.layer, self.vector, strength, scope or All(), given)

    def close(self, a: Tensor, b: Tensor) -> tuple[bool, str]:
        """Whether logits agree up to rounding."""
        difference = float((a.float() - b.float()).abs().max() / b.float().abs().max().clamp_min(1e-6))
        return difference <= self.tolerance, f"largest difference {difference:.1e} of the logits' size"
