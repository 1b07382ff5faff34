"""All experiments, by name."""

from lightning_steer.studies.papers import fidelity
from lightning_steer.studies.papers.paper import Paper

PAPERS: dict[str, Paper] = {paper.name: paper for paper in (fidelity.FIDELITY, fidelity.NOTEBOOK_SUBSET)}
