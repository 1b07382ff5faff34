"""Do vectors add up? The effect of several at once on each target, less the sum of their single effects."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from lightning_steer.data.behaviours.pairs import ContrastPair
from lightning_steer.errors import UserError
from lightning_steer.hooks import Edit
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.pair_texts import options, origin
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.interactions import interaction
from lightning_steer.statistics.kinds import Mean
from lightning_steer.vectors import SteeringVector
from lightning_steer.vectors.steer import joined, module_of, positions_of


class Interaction(NamedTuple):
    """Changes of a target's margin, positive less negative, in nats per token."""

    singles: list[Estimate]
    """By each vector alone."""
    together: Estimate
    """By all of them."""
    interaction: Estimate
    """By all of them, less the sum of the single changes, paired by item: 0 where effects add up."""


def interactions(
    llm: LLM,
    vectors: Sequence[SteeringVector],
    targets: Mapping[str, Sequence[ContrastPair]],
    strengths: Sequence[float] | None = None,
) -> dict[str, Interaction]:
    """Measure on pairs that played no part in fitting whether the effects of several vectors add up.

    Args:
        llm: the model that the vectors belong to.
        vectors: two or more, at sites of their own or at shared ones, where their changes are added.
        targets: pairs by what they show; pairs with one prompt are a cluster.
        strengths: one for each vector; None for those of their cards.

    Raises:
        ValueError: there are fewer than two vectors, or their cards name different tokens.
    """
    if len(vectors) < 2:
        raise UserError(f"an interaction is of at least 2 vectors, not {len(vectors)}")
    rules = {str(vector.card.positions) for vector in vectors}
    if len(rules) > 1:
        raise UserError(f"the vectors steer different tokens ({', '.join(sorted(rules))}): measure them apart")
    amounts = [vector.card.strength.value for vector in vectors] if strengths is None else list(strengths)
    reader = LLM(
        llm.llm, llm.layers, llm.part, positions_of(vectors[0].card), None, "tokens", llm.chat, llm.system
    ).adopt(llm.model, llm.tokenizer)
    edits = [edits_of(reader, [vector], [amount]) for vector, amount in zip(vectors, amounts, strict=True)]
    results = {}
    for name, pairs in targets.items():
        _, cluster = np.unique([origin(*pair) for pair in pairs], return_inverse=True)
        results[name] = interaction_of(reader, edits, pairs, cluster)
    return results


def interaction_of(
    llm: LLM, edits: Sequence[Mapping[str, Edit]], pairs: Sequence[ContrastPair], cluster: ArrayLike
) -> Interaction:
    """Return the effects of several edits by site on one target, alone and together, in the unit of the model's scores.

    Args:
        llm: the model, loaded.
        edits: two or more, each at one site or several.
        pairs: that played no part in fitting.
        cluster: ``[n]`` the cluster of each pair.
    """
    plain, *steered = (_margins(llm, pairs, edits_of_vector) for edits_of_vector in ({}, *edits, joined(*edits)))
    changes = [Mean().estimate(margin - plain, cluster)[0] for margin in steered]
    (estimate,) = interaction(plain, steered[:-1], steered[-1], cluster=cluster)
    return Interaction(changes[:-1], changes[-1], estimate)


def edits_of(llm: LLM, vectors: Sequence[SteeringVector], strengths: Sequence[float]) -> dict[str, Edit]:
    """Return the edits of vectors by site of the model, added at shared ones."""
    return joined(
        *(
            {module_of(llm.model, site): partial(method, strength=strength)}
            for vector, strength in zip(vectors, strengths, strict=True)
            for site, method in zip(vector.card.sites, vector.maps, strict=True)
        )
    )


@torch.no_grad()
def _margins(llm: LLM, pairs: Sequence[ContrastPair], edits: Mapping[str, Edit]) -> NDArray:
    questions = [MultipleChoice(pair.prompt, options(*pair)) for pair in pairs]
    scores = llm.scores(questions, edits)[0].double().cpu()
    return (scores[:, 0] - scores[:, 1]).numpy()
