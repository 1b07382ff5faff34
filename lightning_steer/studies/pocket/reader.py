"""A pocket model as a reader of many texts at once: what comes next, how likely a continuation is, what it thinks.

It uses nothing of the project but the hooks, so that the model card's numbers do not rest on what they are to test.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lightning_steer.data.pocket.text import BOS, chat
from lightning_steer.hooks import Edit, capture, edit

TOKENS = 16384
"""Tokens in a batch, about."""


class Part(NamedTuple):
    """A batch of texts of like length."""

    rows: Tensor
    """``[B]`` which texts."""
    ids: Tensor
    """``[B, T]`` right-padded."""
    lengths: Tensor
    """``[B]``."""


Edits = Callable[[Part], Mapping[str, Edit]]
"""What is done to a batch's activations, by site."""


def opened(prompt: str, as_chat: bool) -> str:
    """The whole text up to a continuation: begin mark and prompt, or a chat up to the reply."""
    return chat(prompt) if as_chat else f"{BOS} {prompt}"


class Reader:
    """The model in a folder, as the Auto classes load it."""

    def __init__(self, folder: str | Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True).eval()
        self.network.requires_grad_(False)
        self.sites = [f"model.layers.{k}" for k in range(self.network.config.num_hidden_layers)]

    def parts(self, texts: list[str], tokens: int = TOKENS) -> Iterator[Part]:
        """The texts, begin marks included, tokenized and sorted into batches of about so many tokens."""
        encoded = [torch.tensor(ids) for ids in self.tokenizer(texts, add_special_tokens=False)["input_ids"]]
        order, start = sorted(range(len(texts)), key=lambda i: len(encoded[i])), 0
        while start < len(order):
            end = start + max(1, tokens // (len(encoded[order[start]]) + 4))
            rows = order[start:end]
            ids = pad_sequence([encoded[i] for i in rows], batch_first=True)
            yield Part(torch.tensor(rows), ids, torch.tensor([len(encoded[i]) for i in rows]))
            start = end

    def _logits(self, part: Part, edits: Edits | None) -> Tensor:
        with edit(self.network, edits(part) if edits else {}):
            return self.network(input_ids=part.ids, use_cache=False).logits

    def next(self, texts: list[str], edits: Edits | None = None) -> Tensor:
        """``[n, vocabulary]`` log-probabilities of the token after each text."""
        found = torch.empty(len(texts), self.network.config.vocab_size)
        for part in self.parts(texts):
            every = torch.arange(len(part.rows))
            found[part.rows] = self._logits(part, edits)[every, part.lengths - 1].log_softmax(-1)
        return found

    def tokens(self, texts: list[str], edits: Edits | None = None) -> list[Tensor]:
        """For each text ``[length - 1]``: log-probability of every token but the first."""
        found = [torch.empty(0)] * len(texts)
        for part in self.parts(texts):
            logp = self._logits(part, edits)[:, :-1].log_softmax(-1).gather(-1, part.ids[:, 1:, None]).squeeze(-1)
            for row, values, length in zip(part.rows.tolist(), logp, part.lengths.tolist(), strict=True):
                found[row] = values[: length - 1]
        return found

    def continuations(self, prompts: list[str], continuations: list[str], edits: Edits | None = None) -> Tensor:
        """``[n]`` mean log-probability of each continuation's tokens after its opened prompt."""
        begun = self.tokenizer(prompts, add_special_tokens=False)["input_ids"]
        whole = [f"{prompt} {continuation}" for prompt, continuation in zip(prompts, continuations, strict=True)]
        logp = self.tokens(whole, edits)
        return torch.stack([values[len(ids) - 1 :].mean() for ids, values in zip(begun, logp, strict=True)])

    def read(self, texts: list[str], weights: Callable[[Part], Tensor], edits: Edits | None = None) -> Tensor:
        """``[n, sites, d]`` activations summed over tokens with ``weights(part) [B, T]``."""
        found = torch.empty(len(texts), len(self.sites), self.network.config.hidden_size)
        for part in self.parts(texts):
            with edit(self.network, edits(part) if edits else {}), capture(self.network, self.sites) as seen:
                self.network.model(input_ids=part.ids, use_cache=False)
            h = torch.stack([seen[site] for site in self.sites], 1)
            found[part.rows] = torch.einsum("bsti,bt->bsi", h, weights(part).float())
        return found


def last(part: Part) -> Tensor:
    """``[B, T]`` 1 at each text's last token."""
    return torch.arange(part.ids.shape[1]) == part.lengths[:, None] - 1
