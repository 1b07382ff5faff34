"""All experiments, by name."""

from lightning_steer.studies.papers import caa, fidelity, likelihood, mera, refusal_direction, system_prompts
from lightning_steer.studies.papers.paper import Paper

PAPERS: dict[str, Paper] = {
    paper.name: paper
    for paper in (
        mera.MERA,
        fidelity.FIDELITY,
        fidelity.NOTEBOOK_SUBSET,
        likelihood.LIKELIHOOD,
        likelihood.TUNED,
        system_prompts.SYSTEM_PROMPTS,
        caa.CAA,
        refusal_direction.REFUSAL_DIRECTION,
    )
}
