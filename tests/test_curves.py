"""The curves of a report: they begin where nothing is changed, and pass through the table's own figures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_steering import STRENGTHS, adaptor, data, run

from lightning_steer.methods import MeanDifference
from lightning_steer.metrics.attributes import attribute_effect
from lightning_steer.modules import damage
from lightning_steer.modules.figures import by_strength
from lightning_steer.modules.interventions import Interventions
from lightning_steer.report import figures, html
from lightning_steer.statistics.estimate import Estimate


def point(value: float) -> Estimate:
    return Estimate(value, value - 1, value + 1, 9, None, "made up")


@pytest.fixture(scope="module")
def tested(toy_checkpoints: dict, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    module = adaptor(toy_checkpoints["none"], MeanDifference, random_curve=3)
    return module, run(module, data(), tmp_path_factory.mktemp("run"))


def test_the_dose_response_begins_at_the_baseline(tested: tuple) -> None:
    _, report = tested
    curve = report["curves"]["strength"]
    assert curve["x"] == [0, *STRENGTHS]
    for measure in report["baselines"]["baseline"]:
        assert curve[measure]["value"][0] == report["baselines"]["baseline"][measure]["value"]
        place = curve["x"].index(report["metrics"]["strength"]["value"])
        assert curve[measure]["value"][place] == report["metrics"][measure]["value"]


def test_the_band_is_that_of_random_directions_of_the_methods_own_length(tested: tuple) -> None:
    module, report = tested
    (site,), pairs = module.backbone.sites, data()
    h = torch.cat([torch.cat(module.backbone.activations(side)[site].split(1)) for side in _fitted(pairs)])
    method, band = module.methods[site], report["curves"]["random"]
    u = torch.randn(4, h.shape[-1], generator=torch.Generator().manual_seed(0))[:3]
    u = u / u.norm(dim=-1, keepdim=True)
    (batch,) = list(pairs.test_dataloader()[0])
    negatives = h[: len(h) // 2]
    for place, strength in enumerate(STRENGTHS, 1):
        length = (method(negatives, strength) - negatives).norm(dim=-1).mean()
        base = module.backbone.scores(batch.x)[0]
        scores = torch.stack([module.backbone.scores(batch.x, {site: lambda x, v=length * v: x + v})[0] for v in u])
        drift = attribute_effect(base, scores, batch.y, batch.y_positive)["drift_kl"].double().mean(1).numpy()
        ends = [band["drift_kl"][key][place] for key in ("low", "value", "high")]
        np.testing.assert_allclose(ends, [drift.min(), np.median(drift), drift.max()], rtol=1e-3)


def _fitted(pairs):
    batches = list(pairs.train_dataloader())
    return torch.cat([b.x for b in batches]), torch.cat([b.x_positive for b in batches])


def test_no_band_without_random_directions(toy_checkpoints: dict, tmp_path: Path) -> None:
    report = run(adaptor(toy_checkpoints["none"], MeanDifference, random_curve=0), data(), tmp_path)
    assert "random" not in report["curves"]
    assert "random_control" in report["baselines"]


@pytest.mark.parametrize(
    ("strengths", "identity", "x"),
    [
        ((1.0, 2.0), 0.0, [0, 1, 2]),
        ((-1.0, 1.0), 0.0, [-1, 0, 1]),
        ((0.0, 1.0), 0.0, [0, 1]),
        ((0.5, 0.1), 1.0, [0.1, 0.5, 1]),
    ],
)
def test_points_stand_in_the_order_of_their_strengths(strengths: tuple, identity: float, x: list[float]) -> None:
    columns = {"m": [point(10 * strength) for strength in strengths]}
    curve = by_strength(strengths, columns, identity, {"m": point(10 * identity)})
    assert curve["x"] == x
    assert curve["m"]["value"] == [10 * strength for strength in x]


def test_copies_are_parted_in_the_order_of_their_groups() -> None:
    groups = [Interventions(name, copies, lambda _site, h: h) for name, copies in (("a", 2), ("b", 1), ("c", 3))]
    parts = damage.split({"m": [point(value) for value in range(6)]}, groups)
    assert {name: [estimate.value for estimate in part["m"]] for name, part in parts.items()} == {
        "a": [0, 1], "b": [2], "c": [3, 4, 5],
    }  # fmt: skip


def test_the_figure_shows_damage_and_the_range_of_random_directions(tested: tuple) -> None:
    _, report = tested
    x = report["curves"]["strength"]["x"]
    column = {"value": [0.0, 0.1, 0.2, 0.3, 0.4], "low": [None] * 5, "high": [None] * 5}
    report = {
        **report,
        "curves": {**report["curves"], "damage": {"x": x, "reference_kl": column}},
        "budget": 0.1,
    }
    figure = figures.dose_response(report, ["exact_match"])
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"everything right", figures.RANDOM.format(3), "budget", "chosen strength"} <= labels
    assert len(figure.axes) == 2
    page = html.page([{**report, "run": "r", "dose_response": {"measures": ["exact_match"], "unit": "share"}}], {})
    assert 'class="band"' in page
    assert figures.RANDOM.format(3) in page
    assert ">0.75</text>" not in page.split("<figcaption>Damage")[1].split("</figure>")[0]  # its axis is no share's
    assert "<figcaption>Damage</figcaption>" in page
