"""The theorems of docs/theory.md, each checked with numbers; and the study that writes the page."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.methods import MidSteer
from lightning_steer.records import Activations
from lightning_steer.studies.mera import cells
from lightning_steer.studies.theory import measuring, page, softmax, worlds
from lightning_steer.studies.theory.directions import TOLERANCE, along, degrees, fit
from lightning_steer.studies.theory.reading import prompts, read


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def close(a: Tensor, b: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, check_dtype=False)


H = drawn(400, 6) @ drawn(6, 6, seed=1) + 3
Y = H @ drawn(6, seed=2) + drawn(400, seed=3) + 0.3 * H[:, 0] ** 2
"""Skewed targets: nothing that is tested here needs normal laws."""


@pytest.mark.parametrize("metric", ["Euclid", "Mahalanobis", "dual"])
def test_1_and_2_no_shift_of_equal_effect_costs_less(metric: str) -> None:
    g, factor = drawn(6), drawn(6, 6, seed=4)
    m = {"Euclid": torch.eye(6).double(), "Mahalanobis": torch.linalg.inv(H.T.cov()), "dual": factor @ factor.T}[metric]
    best = torch.linalg.solve(m, g) / (g @ torch.linalg.solve(m, g))
    others = drawn(2000, 6, seed=5)
    aside = others - (others @ g)[:, None] * best  # without effect
    for step in (1.0, 1e-3):
        shifts = best + step * aside
        close(shifts @ g, torch.ones(2000), 1e-6)
        assert ((shifts @ m * shifts).sum(1) > best @ m @ best).all()
    if metric == "Euclid":
        v = others[0] / others[0].norm()
        close(v @ g / g.norm(), torch.deg2rad(degrees(v, g)).cos())


def test_3_to_6_the_path_leads_from_the_filter_to_the_pattern() -> None:
    fitted = fit(H, Y, H, Y)
    x, y = H - H.mean(0), Y - Y.mean()
    covariance = x.T @ y / len(y)
    close(fitted.path[0], torch.linalg.solve(x.T @ x / len(x), covariance), 1e-6)
    close(along(fitted.sigma, fitted.path[0]), covariance, 1e-6)
    for w in fitted.path:  # the covariance of rows and prediction
        close(along(fitted.sigma, w), x.T @ (x @ w) / len(x), 1e-6)
    assert degrees(fitted.path[-1], covariance) < 0.2 < 10 < degrees(fitted.path[0], covariance)
    assert (fitted.r2.diff() < 0).all()  # on the fitted rows themselves, as with infinitely many
    close(fitted.named()["w, penalty by R2"], fitted.path[0])
    good = [k for k, r2 in enumerate(fitted.r2.tolist()) if r2 >= float(fitted.r2[0]) - TOLERANCE]
    assert 0 < good[-1] < len(fitted.path) - 1
    close(fitted.named()["w, largest good penalty"], fitted.path[good[-1]])
    classes = (Y > 2).double() * 2 - 1
    labelled = fit(H, classes, H, classes)
    assert degrees(labelled.named()["Sigma w"], labelled.difference) < 1e-3
    within = torch.cat([rows - rows.mean(0) for rows in (H[Y > 2], H[Y <= 2])])
    assert degrees(torch.linalg.solve(within.T @ within, labelled.difference), labelled.path[0]) < 1e-3


def test_7_and_8_readings_agree_where_directions_need_not() -> None:
    w, g, sigma = drawn(6, seed=6), drawn(6, seed=7), H.T.cov()
    pattern, gradient, inverse = sigma @ w, sigma @ g, torch.linalg.inv(sigma)
    cosine = pattern @ inverse @ gradient / ((pattern @ inverse @ pattern) * (gradient @ inverse @ gradient)).sqrt()
    close(cosine, torch.corrcoef(torch.stack([H @ w, H @ g]))[0, 1], 1e-9)
    values = torch.linalg.eigvalsh(sigma)
    k = float(values[-1] / values[0])
    least = torch.linalg.eigh(sigma).eigenvectors[:, [0, -1]] @ torch.tensor([math.sqrt(k), 1.0]).double()
    bound = 2 * math.sqrt(k) / (1 + k)
    assert float(degrees(least, sigma @ least)) == pytest.approx(math.degrees(math.acos(bound)), abs=1e-6)
    others = drawn(500, 6, seed=8)
    assert (degrees(others, others @ sigma) <= math.degrees(math.acos(bound)) + 1e-6).all()
    exact = worlds.angles(worlds.world().exact())
    assert exact["reads the filter"]["w, least squares"] < 1e-3 < 80 < exact["reads the pattern"]["w, least squares"]
    assert exact["reads the pattern"]["Sigma w"] < 1e-3 < 80 < exact["reads the filter"]["Sigma w"]


def test_the_closed_form_is_what_many_rows_give() -> None:
    exact, fitted = worlds.world().exact(), worlds.simulate(200_000, 0)
    close(fitted.r2, exact.r2, 0.02)
    assert (degrees(fitted.path, exact.path) < 1).all()
    assert all(degrees(v, exact.named()[name]) < 1 for name, v in fitted.named().items())


def test_9_no_form_changes_less_than_the_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    head, h = drawn(30, 6), drawn(12, 6, seed=9)
    g, pair = head[0] - head[1], torch.tensor([0, 1])
    fitted = fit(H, Y, H, Y)
    for effect in (0.01, 2.0):
        best = softmax.optimum(head, h, g, effect)
        moved = [(x @ head.T).softmax(-1) @ head for x in (h, h + best)]
        close(best @ g, torch.full((12,), effect))
        close(degrees(moved[1] - moved[0], g.expand(12, 6)), torch.zeros(12), 0.5)
        least = softmax.change(head, h, best, pair).full
        for v in softmax.forms(head, h, torch.arange(12) - 5.5, pair, fitted, 0).values():
            assert (softmax.change(head, h, effect * v / (v @ g), pair).full >= least - 1e-9).all()
    p = (h @ head.T).softmax(-1)
    fisher = (head.T * p.unsqueeze(1)) @ head - torch.einsum("nd,ne->nde", p @ head, p @ head)
    flat = torch.linalg.solve(fisher, g.expand(12, 6))
    assert (degrees(softmax.optimum(head, h, g, 0.01), flat) < 3).all()  # dual steering, for small effects
    monkeypatch.setattr(softmax, "SHRINKAGE", 1e-9)
    monkeypatch.setattr(softmax, "OUTCOMES", 30)
    seen = torch.stack([h[0], h[0]])
    alike = softmax.forms(head, seen, torch.tensor([1.0, -1.0]), pair, fitted, 0)["F^-1 g (dual)"]
    assert degrees(alike, flat[0]) < 0.01


def test_forms_are_compared_at_equal_effect() -> None:
    head, h, pair = drawn(30, 6), drawn(12, 6, seed=9), torch.tensor([0, 1])
    g, fitted = head[0] - head[1], fit(H, Y, H, Y)
    compared = softmax.compare(head, H, Y, h, pair, fitted, 0)
    rows = Activations(H, (Y <= 0).double(), torch.zeros(400, 1).long(), False)
    own = MidSteer(6).fit(rows)(h, 1.0) - h
    shifts = {"g (Euclid)": g, "Sigma g (Mahalanobis)": H.T.cov() @ g, "midsteer.yaml": own}
    for name, v in shifts.items():
        for effect, (full, other) in zip(softmax.EFFECTS, compared[name], strict=True):
            change = softmax.change(head, h, effect * v / (v @ g).mean(), pair)
            close(torch.stack([x.mean() for x in change]), torch.tensor([full, other]), 1e-3)


def test_the_change_among_others_leaves_the_two_out() -> None:
    head, h = drawn(30, 6), drawn(12, 6, seed=9)
    shift, pair = drawn(6, seed=10), torch.tensor([0, 1])
    p, q = ((x @ head.T).softmax(-1) for x in (h, h + shift))
    full, other = softmax.change(head, h, shift, pair)
    close(full, (p * (p / q).log()).sum(-1))
    rest, steered = (x[:, 2:] / x[:, 2:].sum(-1, keepdim=True) for x in (p, q))
    close(other, (rest * (rest / steered).log()).sum(-1))


def test_10_midsteer_reads_with_the_filter_and_writes_along_the_pattern() -> None:
    classes = (Y > 2).double() * 2 - 1
    method = MidSteer(6).fit(Activations(H, (1 - classes) / 2, torch.zeros(400, 1).long(), False))
    fitted, state = fit(H, classes, H, classes), method.state_dict()
    assert degrees(state["read"].double(), -fitted.path[0]) < 0.01
    assert degrees(state["write"].double(), fitted.difference) < 0.01


@pytest.mark.parametrize("goal", ["sms_spam", "town"])
def test_the_gradient_is_that_of_the_margin(goal: str) -> None:
    llm = cells.load("checkpoints/pocket/base", False)
    reading = read(llm, goal, 40, 0)
    head = llm.model.get_output_embeddings().weight.detach().double()
    close(reading.states @ (head[reading.pair[0]] - head[reading.pair[1]]), reading.margin, 1e-4)
    assert torch.corrcoef(torch.stack([reading.margin, reading.ground_truth]))[0, 1] > 0.9
    questions, _, words = prompts(goal, 40, 0, False)
    texts = [question.prompt + "".join(question.choices) for question in questions]
    choices = [MultipleChoice(text, tuple(f" {word}" for word in words)) for text in texts]
    v = drawn(96, seed=11).float()
    for layer, site in enumerate(llm.sites):
        close(llm.activations(questions)[site], reading.h[layer], 1e-4)
        up, down = (llm.scores(choices, {site: lambda h, s=s: h + s * v})[0].double() for s in (0.01, -0.01))
        slope = ((up - down)[:, 0] - (up - down)[:, 1]) / 0.02
        close(slope, reading.gradient[layer].double() @ v.double(), 0.05)


def test_the_page_says_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "SIMULATIONS", 2)
    goals, rows = ("sms_spam", "town"), (30, 12, 12)
    numbers = {
        model: [measuring.measure_draw(model, draw, goals, rows) for draw in (0, 1)] for model in measuring.MODELS
    }
    page.write(tmp_path / "theory.md", numbers, numbers["base"][0])
    text = (tmp_path / "theory.md").read_text()
    layer = [numbers["base"][draw][goal]["r2"][3][0] for draw in (0, 1) for goal in goals]
    assert f"| base, 3 | {sum(layer) / 4:.3f} (" in text
    assert "$" not in text
    assert {"theory_angles.png", "theory_off_target.png"} <= {file.name for file in (tmp_path / "figures").iterdir()}
    kls = [numbers["tuned"][draw]["town"]["other"]["Sigma w"][1][0] for draw in (0, 1)]
    line = next(line for line in text.split("\n") if line.startswith("| Sigma w | ") and line.count("|") == 10)
    assert line.split("|")[9].split("[")[0].strip() == f"{min(kls):.3f}"  # the lower of two middle rows
