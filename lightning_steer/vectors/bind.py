"""Bind an imported vector to its model: put the modules' names and the model's fingerprints on the card."""

from lightning_steer.lm.language_model import LLM
from lightning_steer.vectors import fingerprint
from lightning_steer.vectors.file import SteeringVector
from lightning_steer.vectors.steer import module_of


def bind(vector: SteeringVector, name: str) -> SteeringVector:
    """Return the vector with the model of this name on its card.

    Raises:
        ValueError: the model cannot be loaded, is not the one on the card, or lacks the sites.
    """
    llm = LLM(name, 0)
    llm.load()
    model = fingerprint.of_backbone(llm)
    if vector.card.model is not None:
        fingerprint.refuse(vector.card.model, lambda _files: model)
    sites = [site._replace(module=module_of(llm.model, site)) for site in vector.card.sites]
    return vector._replace(card=vector.card._replace(sites=sites, model=model))
