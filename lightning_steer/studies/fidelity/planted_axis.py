"""Exploratory: can the equivalence claims on anisotropy fail? A component is planted in the vector and taken away.

The declared contrasts have no positive control. Here the tuned model's vector, without its own component along an axis
(the common mean, or the top component), gets one of a chosen size and keeps its length. Taking the axis away then gives
the vector without it, and the share of the gap to the base model that goes away is tested like the declared ones: same
model, layer, strength, terms and limit. A few minutes of one core.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor

from lightning_steer.statistics.claims import Result, share_within
from lightning_steer.studies.fidelity import anisotropy, declared
from lightning_steer.studies.fidelity.settings import BIAS_TYPES, LAYER, Arm
from lightning_steer.studies.fidelity.subject import Subject, added, reference_texts
from lightning_steer.studies.fidelity.sweep import rows_of
from lightning_steer.studies.fidelity.verdict import GAP, SEED, by_term

SIZES = (-2.0, -1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 2.0)
"""Length of the planted component over that of the rest of the vector."""


def planted(vector: Tensor, axis: Tensor, size: float) -> Tensor:
    """Return a vector ``[d]`` as long as ``vector`` whose component along ``axis`` is ``size`` times the rest."""
    rest = vector - (vector @ axis) * axis
    mixed = rest / rest.norm() + size * axis
    return mixed * vector.norm() / mixed.norm()


def _margins(subject: Subject, vectors: Tensor) -> list[list[float]]:
    site, pairs = subject.llm.sites[LAYER], subject.test.contrasts
    base = added(subject.llm, pairs, None, torch.zeros(1, 1))[0]
    return by_term(rows_of(base, added(subject.llm, pairs, site, vectors), "suppress")[GAP], subject.test.term)


@torch.no_grad()
def run(models: dict[str, Path], sizes: tuple[float, ...] = SIZES) -> dict[tuple[str, float], Result]:
    """Return ``{(axis, size): share of the gap that goes away}``.

    Args:
        models: folders of ``base`` and ``tuned``.
        sizes: of the planted component.
    """
    base, tuned = ([Subject(Arm(m, m, m), models, kind, SEED) for kind in BIAS_TYPES] for m in ("base", "tuned"))
    llm = tuned[0].llm
    site = llm.sites[LAYER]
    pairs = [subject.fit.contrasts[0] for subject in tuned]
    texts = [q.prompt + q.choices[0] for batch in pairs for q in (*batch.negative, *batch.positive)] + reference_texts(
        False
    )
    axes = anisotropy.axes(anisotropy.states(llm, texts)[0][site])
    of_base = torch.tensor([row for s in base for row in _margins(s, s.vectors[site][None])[0]])
    results = {}
    for name, axis in axes.items():
        by_kind = []
        for subject in tuned:
            vectors = [planted(subject.vectors[site], axis, size) for size in sizes]
            vectors += [anisotropy.without(vector, axis) for vector in vectors]
            by_kind.append(torch.tensor(_margins(subject, torch.stack(vectors))))
        with_axis, without_axis = torch.cat(by_kind, 1).chunk(2)
        for i, size in enumerate(sizes):
            gap, part = of_base - with_axis[i], without_axis[i] - with_axis[i]
            results[name, size] = share_within(part, gap, declared.LIMIT, len(declared.ANISOTROPY.contrasts))
    return results


def main() -> int:
    """Print the table for the models that ship."""
    root = Path("checkpoints/pocket")
    print(f"| planted | size | share of the gap that goes away | p, within {declared.LIMIT:g} |\n|---|---|---|---|")
    for (axis, size), result in run({name: root / name for name in ("base", "tuned")}).items():
        print(f"| {axis} | {size:g} | {result.estimate} | {result.p:.2g} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
