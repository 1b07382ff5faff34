"""Read many texts at once with a pocket model: next tokens, scores of continuations, activations.

It uses only the project's hooks, so the model card's numbers do not depend on the code that they test.
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
"""Approximate number of tokens in a batch."""


class ReadPart(NamedTuple):
    """A batch of texts of similar length."""

    rows: Tensor
    """``[B]`` indices of the texts."""
    ids: Tensor
    """``[B, T]`` right-padded."""
    lengths: Tensor
    """``[B]``."""


Edits = Callable[[ReadPart], Mapping[str, Edit]]
"""Builds the edits of a batch's activations, by site."""


def opened(prompt: str, as_chat: bool) -> str:
    """Return the text before a continuation: begin mark and prompt, or a chat up to the reply."""
    return chat(prompt) if as_chat else f"{BOS} {prompt}"


class PocketReader:
    """A model and its tokenizer, loaded from a folder with transformers' Auto classes."""

    def __init__(self, folder: str | Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True).eval()
        self.network.requires_grad_(False)
        self.sites = [f"model.layers.{k}" for k in range(self.network.config.num_hidden_layers)]

    def parts(self, texts: list[str], tokens: int = TOKENS) -> Iterator[ReadPart]:
        """Tokenize the texts, begin marks included, and sort them into batches of about ``tokens`` tokens."""
        encoded = [torch.tensor(ids) for ids in self.tokenizer(texts, add_special_tokens=False)["input_ids"]]
        order, start = sorted(range(len(texts)), key=lambda i: len(encoded[i])), 0
        while start < len(order):
            end = start + max(1, tokens // (len(encoded[order[start]]) + 4))
            rows = order[start:end]
            ids = pad_sequence([encoded[i] for i in rows], batch_first=True)
            yield ReadPart(torch.tensor(rows), ids, torch.tensor([len(encoded[i]) for i in rows]))
            start = end

    def _logits(self, part: ReadPart, edits: Edits | None) -> Tensor:
        with edit(self.network, edits(part) if edits else {}):
            return self.network(input_ids=part.ids, use_cache=False).logits

    def next(self, texts: list[str], edits: Edits | None = None) -> Tensor:
        """Return log-probabilities ``[n, vocabulary]`` of the token after each text."""
        log_probabilities = torch.empty(len(texts), self.network.config.vocab_size)
        for part in self.parts(texts):
            rows = torch.arange(len(part.rows))
            log_probabilities[part.rows] = self._logits(part, edits)[rows, part.lengths - 1].log_softmax(-1)
        return log_probabilities

    def tokens(self, texts: list[str], edits: Edits | None = None) -> list[Tensor]:
        """Return for each text the log-probabilities ``[length - 1]`` of all tokens but the first."""
        log_probabilities = [torch.empty(0)] * len(texts)
        for part in self.parts(texts):
            logp = self._logits(part, edits)[:, :-1].log_softmax(-1).gather(-1, part.ids[:, 1:, None]).squeeze(-1)
            for row, values, length in zip(part.rows.tolist(), logp, part.lengths.tolist(), strict=True):
                log_probabilities[row] = values[: length - 1]
        return log_probabilities

    def continuations(self, prompts: list[str], continuations: list[str], edits: Edits | None = None) -> Tensor:
        """Return the mean log-probability ``[n]`` of each continuation's tokens, given its opened prompt."""
        prompt_ids = self.tokenizer(prompts, add_special_tokens=False)["input_ids"]
        full_texts = [f"{prompt} {continuation}" for prompt, continuation in zip(prompts, continuations, strict=True)]
        logp = self.tokens(full_texts, edits)
        return torch.stack([values[len(ids) - 1 :].mean() for ids, values in zip(prompt_ids, logp, strict=True)])

    def read(self, texts: list[str], weights: Callable[[ReadPart], Tensor], edits: Edits | None = None) -> Tensor:
        """Return activations ``[n, sites, d]``, summed over tokens with ``weights(part) [B, T]``."""
        activations = torch.empty(len(texts), len(self.sites), self.network.config.hidden_size)
        for part in self.parts(texts):
            with edit(self.network, edits(part) if edits else {}), capture(self.network, self.sites) as captured:
                self.network.model(input_ids=part.ids, use_cache=False)
            h = torch.stack([captured[site] for site in self.sites], 1)
            activations[part.rows] = torch.einsum("bsti,bt->bsi", h, weights(part).float())
        return activations


def last(part: ReadPart) -> Tensor:
    """Return ``[B, T]`` with True at each text's last token."""
    return torch.arange(part.ids.shape[1]) == part.lengths[:, None] - 1
