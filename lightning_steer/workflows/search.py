"""Measure layers and strengths: every layer read in one pass, every strength a row of one batch.

A method that is trained through the output is trained at one layer after another, as far as a search asks for.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType

import torch
from torch import Tensor

from lightning_steer.data.behaviours.module import BehaviourDataModule
from lightning_steer.hooks import Edit
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.metrics import BehaviourEffect
from lightning_steer.modules import fit_data, interventions
from lightning_steer.progress import Progress
from lightning_steer.selection.grid import Grid
from lightning_steer.strength import UnreadableError
from lightning_steer.vectors.steer import joined
from lightning_steer.workflows.unfinished import Unfinished

LEARNING_RATE = 1e-2
"""Adam's, for methods that are trained through the output."""
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
        written: these continuations, as :func:`own_text` returns them; None generates them.
        unfinished: keeps what was measured for the case that the search is stopped; None keeps nothing.
        lines: say how far the search is, if it is long.
        beside: edits that steer already: the effect is what the method adds to them, the damage that of all together.
    """

    @torch.no_grad()
    def __init__(
        self,
        llm: LLM,
        data: BehaviourDataModule,
        method: Callable[[int], SteeringMethod],
        texts: Sequence[str],
        written: Sequence[str] | None = None,
        unfinished: Unfinished | None = None,
        lines: bool = False,
        beside: Mapping[str, Edit] = MappingProxyType({}),
    ) -> None:
        self.llm, self.evaluation, self.beside = llm, BehaviourEffect(), beside
        self.unfinished = unfinished or Unfinished()
        self.progress = Progress("search") if lines else None
        self.methods = {site: method(llm.width(site)) for site in llm.sites}
        first = self.methods[llm.sites[0]]
        self.trained, self.strongest = first.trained, first.strength_range[1]
        self.asked, self.passes = dict.fromkeys(llm.sites, 0), dict.fromkeys(llm.sites, 0)
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        data.read_by(llm)
        if self.trained:
            llm.requires_grad_(False).eval()
            for site, unfitted in self.methods.items():  # their parameters must exist before there is an optimizer
                unfitted.fit(fit_data.no_rows(unfitted)).to(llm.device)
                self.optimizers[site] = torch.optim.Adam(unfitted.parameters(), lr=LEARNING_RATE)
            self.fitted_batches = list(data.train_dataloader())
        else:
            self._fit(data)
        self.batches = list(data.val_dataloader())
        self.baseline = [llm.scores(batch.x, beside)[0] for batch in self.batches]
        self.texts = [list(texts), own_text(llm, texts) if written is None else list(written)]
        self.rows = sum(len(batch.row) for batch in self.batches)

    def _fit(self, data: BehaviourDataModule) -> None:
        llm = self.llm
        sensitivity = self.methods[llm.sites[0]].needs_sensitivity
        read = [fit_data.read(llm, self.evaluation, batch, sensitivity) for batch in data.train_dataloader()]
        columns = {name: torch.cat([batch[name] for batch in read]) for name in read[0]}
        for site, unfitted in self.methods.items():
            rows = len(columns["error"])
            unfitted.fit(fit_data.activations(columns, site, rows, data.paired, llm.heads(site)))

    def train(self, layer: int, passes: int) -> None:
        """Ask for a layer, by its place, to be trained until it has had so many passes over the fitted pairs.

        It is done when the layer is measured, or by :meth:`catch_up`; what is known already needs no training.
        """
        self.asked[self.llm.sites[layer]] = passes

    @torch.enable_grad()
    def catch_up(self, layer: int) -> None:
        """Train a layer, by its place, as far as it was asked for; as ``fit`` trains the same method there."""
        site = self.llm.sites[layer]
        group = interventions.steered("", {site: self.methods[site]}, [1.0])
        edits, copies = interventions.together([group], [site])
        while self.passes[site] < self.asked[site]:
            for batch in self.fitted_batches:
                loss = self.evaluation.loss(self.llm.scores(batch.x, edits, copies), batch)
                self.optimizers[site].zero_grad()
                (loss.sum() / max(loss.numel(), 1)).backward()
                self.optimizers[site].step()
            self.passes[site] += 1

    @torch.no_grad()
    def grid(self, strengths: Sequence[float]) -> Grid:
        """Return effect and damage of every layer at these strengths, in the method's units."""
        cells = [self.cells(layer, strengths) for layer in range(len(self.llm.sites))]
        effect, damage = (torch.stack(rows) for rows in zip(*cells, strict=True))
        return Grid(self.llm.layers, list(strengths), effect, damage, self.rows)

    @torch.no_grad()
    def cells(self, layer: int, strengths: Sequence[float]) -> tuple[Tensor, Tensor]:
        """``[strengths]`` effect and damage of one layer, by its place among those that are tried."""
        site = self.llm.sites[layer]
        place = f"{site}, {self.asked[site]} passes, strengths {', '.join(map(repr, strengths))}"

        def measure() -> tuple[Tensor, Tensor]:
            self.catch_up(layer)
            cells = self._layer(site, strengths)
            if self.progress is not None:
                self.progress.step(self.token_passes(layer, len(strengths)), f"layer {self.llm.layers[layer]}")
            return cells

        return self.unfinished.known_or(place, measure)

    @torch.no_grad()
    def damage(self, layer: int, strengths: Sequence[float], texts: Sequence[Sequence[str]]) -> Tensor:
        """``[strengths]`` damage to other groups of texts at one layer, by its place; infinite if it is unreadable."""
        site = self.llm.sites[layer]
        try:
            return _worst(damage(self.llm, texts, *self._edits(site, strengths)))
        except UnreadableError:
            if len(strengths) == 1:
                return torch.full((1,), torch.inf, dtype=torch.float64)
            return torch.cat([self.damage(layer, [strength], texts) for strength in strengths])

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

    def _edits(self, site: str, strengths: Sequence[float]) -> tuple[dict[str, Edit], int]:
        """Return the edits of every strength at one site with those beside them, and their number of copies."""
        group = interventions.steered("", {site: self.methods[site]}, strengths)
        edits, copies = interventions.together([group], [site])
        return joined(self.beside, edits), copies

    def _layer(self, site: str, strengths: Sequence[float]) -> tuple[Tensor, Tensor]:
        """``[strengths]`` effect and damage; a strength that the network cannot read has infinite damage."""
        edits, copies = self._edits(site, strengths)
        try:
            rows = [
                self.evaluation.rows(before, self.llm.scores(batch.x, edits, copies), batch)["margin_change"]
                for before, batch in zip(self.baseline, self.batches, strict=True)
            ]
            return torch.cat(rows, 1).mean(1).cpu(), _worst(damage(self.llm, self.texts, edits, copies))
        except UnreadableError:
            if len(strengths) == 1:
                return torch.full((1,), torch.nan, dtype=torch.float64), torch.full(
                    (1,), torch.inf, dtype=torch.float64
                )
            cells = [self._layer(site, [strength]) for strength in strengths]
            effect, lost = (torch.cat(column) for column in zip(*cells, strict=True))
            return effect, lost


def _worst(lost: Tensor) -> Tensor:
    return lost.double().nan_to_num(nan=torch.inf, posinf=torch.inf)


def damage(llm: LLM, groups: Sequence[Sequence[str]], edits: Mapping[str, Edit], copies: int = 1) -> Tensor:
    """``[copies]`` KL to the unsteered model, nats per token: of the group of texts that changes most."""
    kl = [llm.drift(texts, edits, copies).kl.flatten(1) for texts in groups if texts]
    return torch.stack([each.nansum(1) / (~each.isnan()).sum(1) for each in kl]).amax(0).cpu()


def own_text(llm: LLM, texts: Sequence[str], without: Sequence[str] = ()) -> list[str]:
    """Return what the unsteered model writes after the first words of each text, with these words.

    Args:
        llm: the model.
        texts: where the first words come from; each opening counts once.
        without: texts that serve elsewhere: none of them begins like what is returned, where more words of a text
            are taken if need be.
    """
    openings = list(dict.fromkeys(filter(None, (opening(text, without) for text in texts))))
    written = llm.generate(openings, max_new_tokens=CONTINUATION) if openings else []
    return [f"{begun} {text.strip()}" for begun, text in zip(openings, written, strict=True) if text.strip()]


def opening(text: str, without: Sequence[str]) -> str | None:
    """Return the first words of a text with which none of the others begins; None if there are none."""
    words, others = text.split(), [other.split() for other in without]
    for count in range(min(OPENING, len(words)), max(len(words), OPENING + 1)):
        if not any(other[:count] == words[:count] for other in others):
            return " ".join(words[:count])
    return None
