"""Compute many steered answers to the same prompts when only the last token is steered.

The tokens before the last one are the same for all methods and thresholds. They run once, and their keys and values
are kept. A decision then costs one token; one in the last block costs only the vocabulary head.
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
    """``[B]`` indices of the prompts."""
    last: Tensor
    """``[B, 1]`` their last tokens."""
    past: Any
    """Keys and values of the tokens before it."""
    length: int
    """Number of tokens before the last one."""


class Decisions:
    """Prompts with one-token answers, prepared for repeated decisions.

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
            same_length = [i for i, row in enumerate(rows) if row.prompt == length]
            for start in range(0, len(same_length), rows_at_once):
                self._add(same_length[start : start + rows_at_once], rows, length)
        self.base = self.scores({}, [1.0])[0]

    def _add(self, indices: list[int], rows: Any, length: int) -> None:
        ids = torch.tensor([rows[i].ids for i in indices])
        past: Any = self.llm.decoder.base(input_ids=ids[:, :-1], use_cache=True).past_key_values
        group = Group(torch.tensor(indices), ids[:, -1:], past, length - 1)
        with capture(self.llm.model, self.llm.sites) as captured:
            self._run(group, {})
        for k, site in enumerate(self.llm.sites):
            self.h[k, group.rows] = captured[site][:, 0].float()
        self.groups.append(group)

    def _run(self, group: Group, edits: Mapping[str, Edit]) -> Tensor:
        with edit(self.llm.model, edits):
            decoder = self.llm.decoder.base
            h = decoder(input_ids=group.last, past_key_values=group.past, use_cache=True)[0]
        group.past.crop(-1)
        return self.llm.decoder.logits(h[:, 0], self.tokens)

    @torch.no_grad()
    def observe(self, maps: Mapping[int, SteeringMethod], strength: float, layer: int) -> tuple[Tensor, Tensor]:
        """Return logits ``[n, options]`` with these maps, and a layer's output ``[n, d]`` before its own map."""
        site, h, logits = self.llm.site(layer), torch.empty_like(self.h[0]), torch.empty_like(self.base)
        edits = {self.llm.site(k): (lambda h, m=m: m(h, strength)) for k, m in maps.items()}
        for group in self.groups:
            with capture(self.llm.model, [site]) as captured:
                logits[group.rows] = self._run(group, edits)
            h[group.rows] = captured[site][:, 0].float()
        return logits, h

    @torch.no_grad()
    def scores(self, maps: Mapping[int, SteeringMethod], strengths: Sequence[float]) -> Tensor:
        """Return logits ``[S, n, options]`` of the options at each strength, up to a constant for each row.

        Args:
            maps: the map of each steered layer.
            strengths: S of them.
        """
        logits = torch.empty(len(strengths), self.count, len(self.tokens))
        sites = {self.llm.site(layer): method for layer, method in maps.items()}
        last_site = self.llm.site(self.llm.decoder.depth - 1)
        for group in self.groups:
            if set(sites) == {last_site}:  # above it rows do not interact: all strengths run at once
                all_strengths = torch.tensor(strengths, dtype=torch.float32)

                def at_all_strengths(h: Tensor, all_strengths: Tensor = all_strengths) -> Tensor:
                    return sites[last_site](h.expand(len(all_strengths), *h.shape), all_strengths).flatten(0, 1)

                logits[:, group.rows] = self._run(group, {last_site: at_all_strengths}).unflatten(
                    0, (len(all_strengths), -1)
                )
                continue
            for s, strength in enumerate(strengths):
                edits = {site: (lambda h, m=m, s=strength: m(h, s)) for site, m in sites.items()}
                logits[s, group.rows] = self._run(group, edits)
        return logits
