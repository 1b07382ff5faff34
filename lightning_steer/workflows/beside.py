"""Vectors that steer already while a new one is searched for: what it adds to them is what counts."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lightning_steer.cache.fingerprints import of_tensors
from lightning_steer.data.behaviours.pairs import ContrastPair
from lightning_steer.errors import UserError
from lightning_steer.hooks import Edit
from lightning_steer.lm.language_model import LLM
from lightning_steer.report.tables import cell
from lightning_steer.vectors import SteeringVector, edit
from lightning_steer.vectors.file import state
from lightning_steer.vectors.steer import as_plain
from lightning_steer.workflows.interaction import edits_of, interaction_of
from lightning_steer.workflows.search import damage


class Beside(NamedTuple):
    """Vectors at the strengths of their cards, as edits of a model; empty if there are none."""

    edits: Mapping[str, Edit]
    name: str
    """Method, places and strength of each."""
    content: str
    """A hash of their tensors, places and strengths."""

    @classmethod
    def of(cls, llm: LLM, vectors: Sequence[SteeringVector]) -> "Beside":
        """Return vectors as edits; raises ValueError if they belong to another model, or steer other tokens.

        Args:
            llm: the model, loaded, with the tokens that the new vector is to steer.
            vectors: fitted ones, at decoder blocks.
        """
        if not vectors:
            return cls({}, "", "")
        for vector in vectors:
            if vector.card.positions != as_plain(llm.positions):
                raise UserError(
                    f"a vector beside the new one steers {vector.card.positions['name']}, and the new one "
                    f"{type(llm.positions).__name__}: set the tokens (--positions) to those of the vector"
                )
            if any(site.layer is None for site in vector.card.sites):
                raise UserError(f"{vector.card.method} acts on no decoder block: it cannot steer beside another vector")
        with edit(llm, list(vectors)):  # compares model, sites and widths
            pass
        cards = [vector.card for vector in vectors]
        tensors = {f"{i} {j} {name}": value for i, vector in enumerate(vectors) for j, method in enumerate(vector.maps)
                   for name, value in state(method).items()}  # fmt: skip
        content = repr(
            (of_tensors(tensors), [(card.method, card.settings, card.sites, card.strength) for card in cards])
        )
        edits = edits_of(llm, vectors, [card.strength.value for card in cards])
        return cls(edits, " and ".join(map(_described, vectors)), content)

    def check_budget(self, llm: LLM, texts: Sequence[str], budget: float) -> None:
        """Raise ValueError if these vectors alone change unrelated text by more than the budget."""
        if self.edits and not (kl := float(damage(llm, [texts], self.edits))) <= budget:
            raise UserError(
                f"{self.name} alone changes unrelated text by {kl:.3g} nats per token, more than the budget of "
                f"{budget:g} for all vectors together: raise the budget, or save a vector with a smaller strength"
            )

    def record(
        self, llm: LLM, edits: Mapping[str, Edit], pairs: Sequence[ContrastPair], cluster: Sequence[int], kl: float
    ) -> dict[str, Any]:
        """Return what the new vector does alone, these alone, and all together, and the interaction, for a report.

        Args:
            llm: the model.
            edits: those of the new vector.
            pairs: held-out ones.
            cluster: the cluster of each.
            kl: change of unrelated text by all together, in nats per token.
        """
        measured = interaction_of(llm, [edits, self.edits], pairs, cluster)
        alone, others, together, interaction = (
            estimate._asdict() for estimate in (*measured.singles, measured.together, measured.interaction)
        )
        low, high = interaction["low"], interaction["high"]
        verdict = (
            "they help each other"
            if low > 0
            else "they hinder each other"
            if high < 0
            else "the interval holds 0, so these pairs do not show whether they help or hinder each other"
            if low <= 0 <= high
            else "too few pairs for an interval"
        )
        sentence = (
            f"Beside {self.name}: on {interaction['n']} held-out pairs the margin changes by {cell(alone)} nats per "
            f"token with the new vector alone, by {cell(others)} with what is beside it alone and by {cell(together)} "
            f"with all. The interaction, what all do beyond the sum of the two, is {cell(interaction)}: {verdict}. All "
            f"together change unrelated text by {kl:.3f} nats per token. All other figures are of the new vector alone."
        )
        estimates = {"alone": alone, "beside": others, "together": together, "interaction": interaction}
        return {"vectors": self.name, **estimates, "reference_kl": kl, "sentence": sentence}


def _described(vector: SteeringVector) -> str:
    places = ", ".join(f"{site.part} {site.layer}" for site in vector.card.sites)
    return f"{vector.card.method} at {places}, strength {vector.card.strength.value:g}"
