"""Laws on the device, in float32 and bfloat16: those of ``check``, and results equal to the CPU's."""

import copy
from collections.abc import Iterator

import side_by_side
import torch
from gpu_parts.models import Form, Row, bytes_tokenizer, language_model, of_words
from search import STRENGTHS, search_of
from side_by_side import sentence
from torch import Tensor

from lightning_steer.check import check
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.methods import MERA
from lightning_steer.probes import semismooth_newton
from lightning_steer.probes.lasso import lasso
from lightning_steer.probes.moments import Moments
from lightning_steer.probes.normal_equations import NormalEquations
from lightning_steer.records import Activations

NATS = {torch.float32: 1e-3, torch.bfloat16: 0.2}
"""Largest difference of scores, which rounding alone may make."""
SHIFT = {torch.float32: 1e-4, torch.bfloat16: 1e-2}
"""Largest difference of shifts, as a share of the rows' lengths."""
PENALTIES = [0.1, 0.03, 0.01]


def laws(form: Form) -> Iterator[Row]:
    """Try all laws in both precisions."""
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        llm = language_model(form.law, dtype, bytes_tokenizer(), 256)
        verdicts = check(llm)
        for verdict in verdicts:
            if not verdict.passed:
                yield Row("laws", f"{name}: {verdict.law}", verdict.detail, holds=False)
        held = sum(verdict.passed for verdict in verdicts)
        yield Row("laws", f"{name}: laws of `check`", f"{held} of {len(verdicts)} hold", holds=held == len(verdicts))
        llm = of_words(form.law, dtype, [1, 2])
        for law in (sweep, search, mera):
            difference, bound = law(llm)
            told = f"largest difference {difference:.1e}, bound {bound:.1e}"
            yield Row(
                "laws", f"{name}: {(law.__doc__ or '').splitlines()[0].rstrip('.')}", told, holds=difference <= bound
            )
    yield batched_lasso(form)


def twin(llm: LLM) -> LLM:
    """The same model on the CPU."""
    return LLM("random", layers=llm.layers).adopt(copy.deepcopy(llm.model).to("cpu"), llm.tokenizer)


def sweep(llm: LLM) -> tuple[float, float]:
    """Strengths as rows of one batch score as one by one."""
    site, dtype = llm.sites[0], llm.model.dtype
    questions = [MultipleChoice(sentence(i, 5, 15), (f" w{i}", f" w{i + 7} w{i}")) for i in range(4)]
    vector = torch.randn(llm.width(""), generator=torch.Generator().manual_seed(0)).to(llm.device, dtype)
    strengths = torch.linspace(-1, 1, 3, device=llm.device, dtype=dtype)
    together = llm.scores(questions, {site: lambda h: h + strengths.view(-1, 1, 1, 1) * vector}, 3)
    single = [llm.scores(questions, {site: lambda h, s=s: h + s * vector})[0] for s in strengths]
    return float((together - torch.stack(single)).abs().max()), NATS[dtype]


def search(llm: LLM) -> tuple[float, float]:
    """Effect and damage of every layer and strength are the CPU's."""
    here, there = (search_of(model).grid(STRENGTHS[:3]) for model in (twin(llm), llm))
    different = [(a.cpu() - b.cpu()).abs().max() for a, b in ((here.effect, there.effect), (here.damage, there.damage))]
    return float(max(different)), NATS[llm.model.dtype]


def mera(llm: LLM) -> tuple[float, float]:
    """MERA fitted here shifts as fitted on the CPU, relative to the rows' lengths."""
    questions = [MultipleChoice(sentence(i, 5, 15)) for i in range(60)]
    h = llm.activations(questions)[llm.sites[0]].float()
    error = torch.sigmoid(h @ torch.linspace(-1, 1, h.shape[1], device=h.device) / h.std())
    shifts: list[Tensor] = []
    for device in (torch.device("cpu"), llm.device):
        rows, wrong = h.to(device), error.to(device)
        seen = Activations(rows, wrong, (wrong > 0.5).long().unsqueeze(1), False)
        shifts.append((MERA(h.shape[1]).fit(seen)(rows.to(llm.model.dtype), 0.2).float() - rows).cpu())
    return float((shifts[0] - shifts[1]).norm(dim=1).max() / h.norm(dim=1).mean()), SHIFT[llm.model.dtype]


def problems(form: Form) -> tuple[Tensor, Tensor]:
    """Rows ``[layers, n, d]`` with correlated features, and their targets ``[n]``, on the CPU."""
    layers, width, rows = form.probes
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(layers, rows, width, generator=generator) * torch.arange(1, width + 1) ** -0.7
    h = h + 0.3 * h.roll(1, -1)
    return h, h[0, :, :8].sum(1) + torch.randn(rows, generator=generator)


def batched_lasso(form: Form) -> Row:
    """Solve a few problems in one batch here, and one by one on the CPU."""
    h, y = problems(form)
    h = h[:3, :, :256]
    equations = NormalEquations.of(Moments.like(h, y).add(h, y))
    here = lasso(equations, PENALTIES)
    moved = NormalEquations(*(x.to(side_by_side.DEVICE) for x in equations))
    there = lasso(moved, PENALTIES, solver=semismooth_newton.solve)  # a GPU's, here too
    difference = float((here.objective - there.objective.cpu()).abs().max() / here.objective.abs().max())
    holds = bool(there.converged.all()) and difference <= 2e-6
    told = f"gap {float(there.gap.max()):.1e}, objectives equal to {difference:.1e}"
    return Row("laws", "batched lasso reaches the gap and the CPU's objective", told, holds=holds)
