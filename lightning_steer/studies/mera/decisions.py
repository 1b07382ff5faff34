"""Many steered answers to the same prompts, when the last token alone is steered.

What stands before the last token is the same for all methods and thresholds: it is run once, and its keys and values
kept. A decision then costs one token, and one in the last block no more than the vocabulary head.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_steer.hooks import Edit, capture, edit
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.methods import SteeringMethod


class Group(NamedTuple):
    """Prompts of one length."""

    rows: Tensor
    """``[B]`` which prompts."""
    last: Tensor
    """``[B, 1]`` their last tokens."""
    past: Any
    """Keys and values of what stands before."""
    length: int
    """Tokens of it."""


class Decisions:
    """Prompts with answers of one token each, ready to be decided again and again.

    Args:
        llm: the model; its layers are where activations are read.
        questions: prompts, all with the same options.
        rows_at_once: prompts that run through the network together.
    """

    @torch.no_grad()
    def __init__(self, llm: LLM, questions: Sequence[MultipleChoice], rows_at_once: int = 512) -> None:
        self.llm, self.count = llm, len(questions)
        rows = llm.rows(questions)
        tokens = [[token for _, token, _ in row.reads] for row in rows]
        if len(rows) != len(questions) or any(len(row.ids) > row.prompt or t != tokens[0] for row, t in zip(
            rows, tokens, strict=True
        )):  # fmt: skip
            raise ValueError("a decision is one token: every option of every prompt must be one, and the same for all")
        self.tokens = torch.tensor(tokens[0])
        self.h = torch.empty(len(llm.layers), len(questions), llm.width(llm.sites[0]))
        self.groups: list[Group] = []
        for length in sorted({row.prompt for row in rows}):
            alike = [i for i, row in enumerate(rows) if row.prompt == length]
            for start in range(0, len(alike), rows_at_once):
                self._add(alike[start : start + rows_at_once], rows, length)
        self.base = self.scores({}, [1.0])[0]

    def _add(self, which: list[int], rows: Any, length: int) -> None:
        ids = torch.tensor([rows[i].ids for i in which])
        past: Any = self.llm.decoder.base(input_ids=ids[:, :-1], use_cache=True).past_key_values
        group = Group(torch.tensor(which), ids[:, -1:], past, length - 1)
        with capture(self.llm.model, self.llm.sites) as seen:
            self._run(group, {})
        for k, site in enumerate(self.llm.sites):
            self.h[k, group.rows] = seen[site][:, 0].float()
        self.groups.append(group)

    def _run(self, group: Group, edits: Mapping[str, Edit]) -> Tensor:
        with edit(self.llm.model, edits):
            decoder = self.llm.decoder.base
            h = decoder(input_ids=group.last, past_key_values=group.past, use_cache=True)[0]
        group.past.crop(-1)
        return self.llm.decoder.logits(h[:, 0], self.tokens)

    @torch.no_grad()
    def observe(self, maps: Mapping[int, SteeringMethod], strength: float, layer: int) -> tuple[Tensor, Tensor]:
        """``[n, options]`` logits with these maps, and ``[n, d]`` what a layer gives before its own map, if any."""
        site, h, found = self.llm.site(layer), torch.empty_like(self.h[0]), torch.empty_like(self.base)
        edits = {self.llm.site(k): (lambda h, m=m: m(h, strength)) for k, m in maps.items()}
        for group in self.groups:
            with capture(self.llm.model, [site]) as seen:
                found[group.rows] = self._run(group, edits)
            h[group.rows] = seen[site][:, 0].float()
        return found, h

    @torch.no_grad()
    def scores(self, maps: Mapping[int, SteeringMethod], strengths: Sequence[float]) -> Tensor:
        """``[S, n, options]`` logits of the options, up to a constant for each row, at each strength.

        Args:
            maps: for each steered layer its map.
            strengths: S of them.
        """
        found = torch.empty(len(strengths), self.count, len(self.tokens))
        sites = {self.llm.site(layer): method for layer, method in maps.items()}
        top = self.llm.site(self.llm.decoder.depth - 1)
        for group in self.groups:
            if set(sites) == {top}:  # above it every row stands by itself: all strengths at once
                many = torch.tensor(strengths, dtype=torch.float32)

                def fan(h: Tensor, many: Tensor = many) -> Tensor:
                    return sites[top](h.expand(len(many), *h.shape), many).flatten(0, 1)

                found[:, group.rows] = self._run(group, {top: fan}).unflatten(0, (len(many), -1))
                continue
            for s, strength in enumerate(strengths):
                edits = {site: (lambda h, m=m, s=strength: m(h, s)) for site, m in sites.items()}
                found[s, group.rows] = self._run(group, edits)
        return found
