"""Search for the layer and the strength: every layer read in one pass, every strength a row of one batch."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from lightning_steer.data.behaviours.module import BehaviourDataModule
from lightning_steer.hooks import Edit
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.metrics import BehaviourEffect
from lightning_steer.modules import fit_data, interventions
from lightning_steer.selection.grid import Grid
from lightning_steer.strength import UnreadableError

OPENING, CONTINUATION = 4, 24
"""Words of a reference text that the model goes on from, and tokens that it writes, for damage to its own text."""


class Search:
    """Effect and damage of steering at every layer, on pairs that choose.

    A layer's strengths are copies of one batch, and the layers below it are computed once for all of them.

    Args:
        llm: a loaded model that reads and steers all the layers to be tried.
        data: its first part is fitted to, its second measured on; the third is not touched.
        method: makes an unfitted method from a width.
        texts: unrelated text; the model's own continuations of their first words are measured, too.

    Raises:
        ValueError: the method is trained through the output, and so cannot be tried at every layer.
    """

    @torch.no_grad()
    def __init__(
        self, llm: LLM, data: BehaviourDataModule, method: Callable[[int], SteeringMethod], texts: Sequence[str]
    ) -> None:
        self.llm, self.evaluation = llm, BehaviourEffect()
        self.methods = {site: method(llm.width(site)) for site in llm.sites}
        for unfitted in self.methods.values():
            if unfitted.trained:
                raise ValueError(
                    f"{type(unfitted).__name__} is trained through the output, which a search would do at every layer: "
                    "give the layers, and use fit"
                )
        data.read_by(llm)
        asked = any(unfitted.needs_sensitivity for unfitted in self.methods.values())
        read = [fit_data.read(llm, self.evaluation, batch, asked) for batch in data.train_dataloader()]
        columns = {name: torch.cat([batch[name] for batch in read]) for name in read[0]}
        for site, unfitted in self.methods.items():
            rows = len(columns["error"])
            unfitted.fit(fit_data.activations(columns, site, rows, data.paired, llm.heads(site)))
        self.batches = list(data.val_dataloader())
        self.baseline = [llm.scores(batch.x)[0] for batch in self.batches]
        self.texts = [list(texts), own_text(llm, texts)]
        self.rows = sum(len(batch.row) for batch in self.batches)

    @torch.no_grad()
    def grid(self, strengths: Sequence[float]) -> Grid:
        """Return effect and damage of every layer at these strengths, in the method's units."""
        cells = [self._layer(site, strengths) for site in self.llm.sites]
        effect, damage = (torch.stack(rows) for rows in zip(*cells, strict=True))
        return Grid(self.llm.layers, list(strengths), effect, damage, self.rows)

    @torch.no_grad()
    def cells(self, layer: int, strengths: Sequence[float]) -> tuple[Tensor, Tensor]:
        """``[strengths]`` effect and damage of one layer, by its place among those that are tried."""
        return self._layer(self.llm.sites[layer], strengths)

    def token_passes(self, layer: int, strengths: int) -> int:
        """How many tokens pass through how many blocks, in sum, for a layer at so many strengths.

        Blocks up to the layer run once for all strengths, those above it once for each. The texts run unsteered, too.
        """
        below, depth = self.llm.layers[layer] + 1, self.llm.decoder.depth
        scored, read = self._tokens
        return (scored + read) * (below + strengths * (depth - below)) + read * depth

    @cached_property
    def _tokens(self) -> tuple[int, int]:
        """Tokens of the pairs that choose, and of the texts."""
        questions = [question for batch in self.batches for question in batch.x]
        texts = [MultipleChoice(text) for group in self.texts for text in group]
        return sum(len(r.ids) for r in self.llm.rows(questions)), sum(len(r.ids) for r in self.llm.rows(texts))

    def _layer(self, site: str, strengths: Sequence[float]) -> tuple[Tensor, Tensor]:
        """``[strengths]`` effect and damage; a strength that the network cannot read has infinite damage."""
        group = interventions.steered("", {site: self.methods[site]}, strengths)
        edits, copies = interventions.together([group], [site])
        try:
            rows = [
                self.evaluation.rows(before, self.llm.scores(batch.x, edits, copies), batch)["margin_change"]
                for before, batch in zip(self.baseline, self.batches, strict=True)
            ]
            lost = damage(self.llm, self.texts, edits, copies)
            return torch.cat(rows, 1).mean(1).cpu(), lost.nan_to_num(nan=torch.inf, posinf=torch.inf)
        except UnreadableError:
            if len(strengths) == 1:
                return torch.full((1,), torch.nan, dtype=torch.float64), torch.full(
                    (1,), torch.inf, dtype=torch.float64
                )
            cells = [self._layer(site, [strength]) for strength in strengths]
            effect, lost = (torch.cat(column) for column in zip(*cells, strict=True))
            return effect, lost


def damage(llm: LLM, groups: Sequence[Sequence[str]], edits: Mapping[str, Edit], copies: int = 1) -> Tensor:
    """``[copies]`` KL to the unsteered model, nats per token: of the group of texts that changes most."""
    kl = [llm.drift(texts, edits, copies).kl.flatten(1) for texts in groups if texts]
    return torch.stack([each.nansum(1) / (~each.isnan()).sum(1) for each in kl]).amax(0).cpu()


def own_text(llm: LLM, texts: Sequence[str], without: Sequence[str] = ()) -> list[str]:
    """Return what the unsteered model writes after the first words of each text, with these words.

    Args:
        llm: the model.
        texts: where the first words come from; each opening counts once.
        without: texts whose openings are left out, since they serve elsewhere.
    """
    openings = list(dict.fromkeys(map(_opening, texts)))
    openings = [opening for opening in openings if opening not in set(map(_opening, without))]
    written = llm.generate(openings, max_new_tokens=CONTINUATION) if openings else []
    return [f"{opening} {text.strip()}" for opening, text in zip(openings, written, strict=True) if text.strip()]


def _opening(text: str) -> str:
    return " ".join(text.split()[:OPENING])
