"""AND, OR and NOT of conceptors: the laws of logic, and what they mean for rows and for subspaces."""

import pytest
import torch
from test_equivalences import close
from torch import Tensor

from lightning_steer.methods.conceptor import conceptor, conjunction, disjunction, negation


def conceptors(*ranks: int, d: int = 6) -> list[Tensor]:
    """Conceptors of aperture 1.5 of random rows in subspaces of these ranks, in float64."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for rank in ranks:
        h = torch.randn(50, rank, dtype=torch.float64, generator=generator)
        h = h @ torch.randn(rank, d, dtype=torch.float64, generator=generator)
        made.append(conceptor(h.T @ h / 50, 1.5))
    return made


@pytest.mark.parametrize("ranks", [(6, 6), (3, 6), (2, 3), (4, 5)])
def test_conceptors_obey_the_laws_of_logic(ranks: tuple[int, int]) -> None:
    a, b = conceptors(*ranks)
    identity, zero = torch.eye(6).double(), torch.zeros(6, 6).double()
    close(negation(negation(a)), a, 1e-9)
    close(negation(conjunction(a, b)), disjunction(negation(a), negation(b)), 1e-6)
    close(negation(disjunction(a, b)), conjunction(negation(a), negation(b)), 1e-6)
    for both in (conjunction, disjunction):
        close(both(a, b), both(b, a), 1e-6)
        close(both(both(a, b), a), both(a, both(b, a)), 1e-6)
    close(conjunction(a, identity), a, 1e-6)
    close(conjunction(a, zero), zero, 1e-6)
    close(disjunction(a, zero), a, 1e-6)
    close(disjunction(a, identity), identity, 1e-6)
    for lower, upper in ((conjunction(a, b), a), (a, disjunction(a, b))):  # in Loewner's order
        assert torch.linalg.eigvalsh(upper - lower).min() > -1e-6


def test_or_is_the_conceptor_of_the_summed_correlations() -> None:
    """Jaeger's meaning of OR: rows of both, pooled. AND is that of the parallel sum, ``(R^-1 + Q^-1)^-1``."""
    x, y = (torch.randn(50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    r, q = x.T @ x / 50, y.T @ y / 50
    close(disjunction(conceptor(r, 2.0), conceptor(q, 2.0)), conceptor(r + q, 2.0), 1e-8)
    parallel = torch.linalg.inv(torch.linalg.inv(r) + torch.linalg.inv(q))
    close(conjunction(conceptor(r, 2.0), conceptor(q, 2.0)), conceptor(parallel, 2.0), 1e-8)


def test_the_logic_of_projectors_is_that_of_subspaces() -> None:
    """AND is the intersection, OR the span of both, NOT the complement; each problem of a stack by itself."""
    a, b = torch.zeros(2, 6, 6).double(), torch.zeros(2, 6, 6).double()
    for i, (mine, its) in enumerate((((0, 1, 2), (2, 3)), ((0, 1), (2, 3)))):
        a[i, mine, mine] = 1.0
        b[i, its, its] = 1.0
    turn = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).Q
    close(conjunction(turn @ a @ turn.T, turn @ b @ turn.T), turn @ (a * b) @ turn.T, 1e-6)
    close(disjunction(turn @ a @ turn.T, turn @ b @ turn.T), turn @ torch.maximum(a, b) @ turn.T, 1e-6)
