"""Gate a fitted vector: steer only prompts like some, and rarely prompts like others, with a bound on how rarely."""

from collections.abc import Sequence

from lightning_steer.errors import UserError
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import LastPromptToken
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.methods.gated import Gated
from lightning_steer.probes import Condition
from lightning_steer.vectors import SteeringVector
from lightning_steer.vectors.file import settings, units


def gate(
    llm: LLM,
    vector: SteeringVector,
    steer: Sequence[str],
    leave: Sequence[str],
    eta: float = 0.05,
    delta: float = 0.05,
    penalty: float | None = 0.1,
) -> SteeringVector:
    """Return the vector with a gate at each of its sites: a prompt is steered only if it looks like one to be steered.

    Every second prompt fits the condition, the others choose the threshold. With several sites each has its part of
    eta and delta, so that the promise is of being steered at any of them.

    Args:
        llm: the model that the vector belongs to; prompts are put into its chat template if ``llm.chat``.
        vector: the fitted vector.
        steer: prompts that should be steered.
        leave: prompts that should be left alone: independent draws of those that will be met.
        eta: the largest share of the latter that may be steered.
        delta: accepted risk that it is larger.
        penalty: of the condition, a ridge probe on standardised features; None takes the difference of the means.

    Returns:
        The vector, to be saved and applied as any other; its card says what is promised.

    Raises:
        ValueError: there are fewer than four prompts of a kind, or the vector acts on no decoder block.
    """
    if min(len(steer), len(leave)) < 4:
        raise UserError(f"a gate needs prompts of both kinds, at least 4, not {len(steer)} and {len(leave)}")
    card = vector.card
    if any(site.layer is None for site in card.sites):
        raise UserError("a gate is decided at the last token of a prompt, and this vector is of no language model")
    layers, part = [site.layer for site in card.sites if site.layer is not None], card.sites[0].part
    reader = LLM(llm.llm, layers, part, read_positions=LastPromptToken(), chat=llm.chat, system=llm.system)  # type: ignore[arg-type]
    reader.loading, reader.tokens_per_batch = llm.loading, llm.tokens_per_batch
    reader.adopt(llm.model, llm.tokenizer)
    rows = [reader.activations([MultipleChoice(text) for text in texts]) for texts in (steer, leave)]
    sites, maps, notes = len(card.sites), [], []
    for site, method in zip(card.sites, vector.maps, strict=True):
        if not isinstance(method, SteeringMethod):
            raise UserError(f"{type(method).__name__} came from another tool: fit a method here to gate it")
        condition = Condition(method.width, eta / sites, delta / sites, penalty)
        open_rows, closed_rows = (h[reader.site(site.layer)].float() for h in rows)  # type: ignore[arg-type]
        condition.fit(open_rows[::2], closed_rows[::2]).calibrate(open_rows[1::2], closed_rows[1::2])
        maps.append(Gated.around(method, condition))
        notes.append(f"Gate at block {site.layer}: {condition.gates[0].reason}.")
    strength = card.strength._replace(units=units(maps[0]))
    warnings = [*card.warnings, "Effects were measured without the gate.", *notes]
    gated_card = card._replace(method=Gated.__name__, settings=settings(maps[0]), strength=strength, warnings=warnings)
    return SteeringVector(maps, gated_card)
