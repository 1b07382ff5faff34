"""Probes of the error, end to end: scores against references, one process as two, reports."""

import json

import pytest
import torch
from conftest import quiet_trainer
from reweighted import bootstrap_weights
from sklearn.metrics import r2_score, roc_auc_score, root_mean_squared_error
from test_mera_study import folder

from lightning_steer.data.mera.module import MERADataModule
from lightning_steer.data.mera.tasks import PocketTask
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import LastPromptToken
from lightning_steer.metrics import Answers
from lightning_steer.metrics.probe_scores import auc, r2, rmse
from lightning_steer.modules.probe import ErrorProbe
from lightning_steer.probes.error_probe import logit_error
from lightning_steer.probes.moments import Moments
from lightning_steer.probes.probe_selection import select


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return folder(tmp_path_factory.mktemp("base"), False)


def test_scores_are_scikit_learns_on_repeated_rows():
    g = torch.Generator().manual_seed(0)
    target = torch.randn(80, generator=g).double()
    guess = (target + torch.randn(80, generator=g)).mul(4).round() / 4  # ties
    wrong = (target > 0.3).double()
    weights = bootstrap_weights(80, 6)
    for i, w in enumerate(weights.long()):
        t, p, c = (x.repeat_interleave(w).numpy() for x in (target, guess, wrong))
        assert float(r2(guess, target, weights)[i]) == pytest.approx(r2_score(t, p))
        assert float(rmse(guess, target, weights)[i]) == pytest.approx(root_mean_squared_error(t, p))
        assert float(auc(guess, wrong, weights)[i]) == pytest.approx(roc_auc_score(c, p))


def test_scores_without_meaning_are_nan():
    ones = torch.ones(1, 5).double()
    assert r2(torch.zeros(5).double(), torch.ones(5).double(), ones).isnan().all()
    assert auc(torch.arange(5.0), torch.ones(5), ones).isnan().all()


def probed(model, tmp_path, **settings):
    data = MERADataModule(PocketTask("sentiment_analysis"), 240, 60, 80, batch_size=50)
    backbone = LLM(str(model), layers=[0, 1, 2], positions=LastPromptToken())
    probe = ErrorProbe(backbone, Answers(), logistic_penalties=[0.05], **settings)
    trainer = quiet_trainer(default_root_dir=tmp_path)
    trainer.fit(probe, data)
    return probe, data, trainer


def test_the_module_fits_what_the_functions_fit(model, tmp_path):
    probe, data, trainer = probed(model, tmp_path)
    backbone, evaluation = probe.backbone, Answers()
    batches = [(batch, *backbone.observe(batch.x)) for batch in data.batches(data.train)]
    h = torch.stack([torch.cat([seen[site] for _, _, seen in batches]) for site in backbone.sites])
    error = torch.cat([evaluation.error(scores, batch) for batch, scores, _ in batches])
    fold = torch.arange(240) % 5
    expected = select(Moments.like(h, logit_error(error), 5).add(h, logit_error(error), fold))
    torch.testing.assert_close(probe.weight[0], expected.chosen.weight, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(probe.intercept[0], expected.chosen.intercept, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(probe.score, expected.score, rtol=1e-6, atol=1e-8)
    trainer.test(probe, data, verbose=False)
    report = json.loads((tmp_path / "report.json").read_text())
    layer = int(expected.score.argmax())
    rows = [(batch, *backbone.observe(batch.x)) for batch in data.batches(data.test)]
    truth = torch.cat([logit_error(evaluation.error(scores, batch)) for batch, scores, _ in rows]).numpy()
    stacked = torch.cat([seen[backbone.sites[layer]] for _, _, seen in rows]).double()
    guess = (stacked @ expected.chosen.weight[layer] + expected.chosen.intercept[layer]).numpy()
    assert report["metrics"]["r2"]["value"] == pytest.approx(r2_score(truth, guess), abs=1e-4)
    assert report["metrics"]["r2"]["n"] == 80
    assert report["metrics"]["r2_dummy"]["value"] <= 0
    for estimate in report["metrics"].values():
        assert estimate["low"] <= estimate["value"] <= estimate["high"]
    assert len(report["layers"]["auc_logistic"]) == 3
    assert "the training rows' mean" in (tmp_path / "report.md").read_text()


def test_a_checkpoint_holds_the_probes_and_not_the_network(model, tmp_path):
    probe, data, trainer = probed(model, tmp_path)
    path = tmp_path / "probe.ckpt"
    trainer.save_checkpoint(path)
    state = torch.load(path, weights_only=True)["state_dict"]
    assert not any(name.startswith("backbone") for name in state)
    again = ErrorProbe(
        LLM(str(model), layers=[0, 1, 2], positions=LastPromptToken()), Answers(), logistic_penalties=[0.05]
    )
    quiet_trainer(default_root_dir=tmp_path).test(again, data, ckpt_path=str(path), verbose=False, weights_only=True)
    assert torch.equal(again.weight, probe.weight)


def test_moments_of_several_processes_add_up(model, tmp_path):
    """What two ranks would do, with their shifts different: all moved to the first's, then summed."""
    whole, _, _ = probed(model, tmp_path)
    parts = []
    for rank in range(2):
        data = MERADataModule(PocketTask("sentiment_analysis"), 240, 60, 80, batch_size=50)
        data.setup()
        probe = ErrorProbe(whole.backbone, Answers())
        for batch in data.batches(data.train):
            own = slice(rank, None, 2)
            probe.training_step(batch._replace(x=batch.x[own], y=batch.y[own], row=batch.row[own]), 0)
        parts.append(probe.moments)
    together = parts[0].merge(parts[1])
    torch.testing.assert_close(select(together).score, whole.score, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("wrong", [{"folds": 1}, {"penalties": []}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="at least 2 folds and 1 penalty"):
        ErrorProbe(LLM("x"), Answers(), **wrong)
