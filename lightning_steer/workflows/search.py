"""Search for the layer and the strength: every layer read in one pass, every strength a row of one batch."""

from collections.abc import Callable, Sequence

import torch

from lightning_steer.data.behaviours.module import BehaviourDataModule
from lightning_steer.lm.language_model import LLM
from lightning_steer.methods.base import Steering
from lightning_steer.metrics import BehaviourEffect
from lightning_steer.modules import fit_data, interventions
from lightning_steer.selection.grid import Grid

OPENING, CONTINUATION = 4, 24
"""Words of a reference text that the model goes on from, and tokens that it writes, for damage to its own text."""


@torch.no_grad()
def search(
    llm: LLM,
    data: BehaviourDataModule,
    method: Callable[[int], Steering],
    strengths: Sequence[float],
    texts: Sequence[str],
) -> tuple[Grid, dict[str, Steering]]:
    """Fit at every layer of the model, and measure effect and damage at every strength.

    A layer's strengths are copies of one batch, and the layers below it are computed once for all of them.

    Args:
        llm: a loaded model that reads and steers all the layers to be tried.
        data: its first part is fitted to, its second measured on; the third is not touched.
        method: makes an unfitted method from a width.
        strengths: in the method's units.
        texts: unrelated text; the model's own continuations of their first words are measured, too.

    Returns:
        The grid, and the fitted method of every site.

    Raises:
        ValueError: the method is trained through the output, and so cannot be tried at every layer.
    """
    evaluation = BehaviourEffect()
    data.read_by(llm)
    read = [fit_data.read(llm, evaluation, batch) for batch in data.train_dataloader()]
    seen = {name: torch.cat([columns[name] for columns in read]) for name in read[0]}
    selecting = list(data.val_dataloader())
    base = [llm.scores(batch.x)[0] for batch in selecting]
    groups = [list(texts), own_text(llm, texts)]
    effect, damage, methods = [], [], {}
    for site in llm.sites:
        fitted = methods[site] = method(llm.width(site))
        if fitted.trained:
            raise ValueError(
                f"{type(fitted).__name__} is trained through the output, which a search would do at every layer: give "
                "the layers, and use fit"
            )
        fitted.fit(fit_data.activations(seen, site, len(seen["error"]), data.paired))
        edits, copies = interventions.together([interventions.steered("", {site: fitted}, strengths)], [site])
        rows = [
            evaluation.rows(before, llm.scores(batch.x, edits, copies), batch)["margin_change"]
            for before, batch in zip(base, selecting, strict=True)
        ]
        effect.append(torch.cat(rows, 1).mean(1).cpu())
        kl = [llm.drift(group, edits, copies).kl.flatten(1) for group in groups if group]
        damage.append(torch.stack([one.nansum(1) / (~one.isnan()).sum(1) for one in kl]).amax(0).cpu())
    n = sum(len(batch.row) for batch in selecting)
    tables = torch.stack(effect), torch.stack(damage)
    return Grid(llm.layers, list(strengths), *tables, n, "nats per token"), methods


def own_text(llm: LLM, texts: Sequence[str]) -> list[str]:
    """Return what the unsteered model writes after the first words of each text, with these words; each once."""
    openings = list(dict.fromkeys(" ".join(text.split()[:OPENING]) for text in texts))
    written = llm.generate(openings, max_new_tokens=CONTINUATION) if openings else []
    return [f"{opening} {text.strip()}" for opening, text in zip(openings, written, strict=True) if text.strip()]
