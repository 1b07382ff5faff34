"""One draw of rows of a pocket model: angles at every layer, and what else changes at equal effect."""

from typing import Any

import torch
from torch import Tensor

from lightning_steer.resources import resource_path
from lightning_steer.studies.mera import cells
from lightning_steer.studies.theory import softmax
from lightning_steer.studies.theory.directions import degrees, fit
from lightning_steer.studies.theory.reading import GOALS, Reading, read

MODELS = ("base", "tuned")
ROWS = (240, 60, 60)
"""Prompts to fit to, to judge penalties on, and to measure on."""
MANY = (2000, 100, 200)
"""The same in draw 0 of the first model, to see what more prompts change."""
CONTEXTS = 16
"""Prompts at most, of those measured on whose planted margin is below 0, whose margin is raised at the head."""


def measure_draw(
    model: str, draw: int, goals: tuple[str, ...] = GOALS, rows: tuple[int, int, int] = ROWS
) -> dict[str, Any]:
    """Return ``{goal: {"angles", "path", "r2", "readings", "spread", "other"}}`` of one draw of the prompts."""
    llm = cells.load(resource_path(f"checkpoints/pocket/{model}"), model == "tuned")
    head = llm.model.get_output_embeddings().weight.detach().double()
    return {goal: _goal(read(llm, goal, sum(rows), draw), head, rows, draw) for goal in goals}


def _goal(reading: Reading, head: Tensor, rows: tuple[int, int, int], draw: int) -> dict[str, Any]:
    n, choice, test = rows[0], reading.part(rows[0], sum(rows[:2])), reading.part(sum(rows[:2]), sum(rows))
    train = reading.part(0, n)
    fitted = fit(train.h, train.ground_truth, choice.h, choice.ground_truth)
    slopes = test.gradient.double()
    g, w = slopes.mean(1), fitted.path[:, 0]
    read_by = torch.stack([torch.einsum("lnd,ld->ln", test.h.double(), v) for v in (w, g)])
    at_head = fit(train.states, train.ground_truth, choice.states, choice.ground_truth)
    contexts = test.states[test.ground_truth < 0][:CONTEXTS]
    return {
        "angles": {name: degrees(v, g).tolist() for name, v in fitted.named().items()},
        "path": degrees(fitted.path, g.unsqueeze(1)).tolist(),
        "r2": fitted.r2.tolist(),
        "readings": [float(torch.corrcoef(read_by[:, k])[0, 1]) for k in range(len(g))],
        "spread": degrees(slopes, g.unsqueeze(1)).mean(1).tolist(),
        "other": softmax.compare(head, train.states, train.ground_truth, contexts, reading.pair, at_head, draw),
    }
