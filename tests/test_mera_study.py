"""The study's shortcuts give what the long way gives; its tables say what its numbers say."""

import json

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lightning_steer.data.mera.module import MERADataModule
from lightning_steer.data.mera.tasks import PocketTask
from lightning_steer.data.pocket.module import vocabulary
from lightning_steer.data.pocket.text import CHAT_TEMPLATE, tokenizer
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.methods import MERA
from lightning_steer.metrics.answers import label_probabilities
from lightning_steer.probes.probe_selection import PENALTIES, select
from lightning_steer.records import Activations
from lightning_steer.studies.mera import __main__ as command
from lightning_steer.studies.mera import cells, controls, estimates, settings
from lightning_steer.studies.mera.decisions import Decisions


def folder(path, chat):
    """A random small model of the pocket language."""
    words = tokenizer(vocabulary(), CHAT_TEMPLATE if chat else None)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    special = {"pad_token_id": words.pad_token_id, "bos_token_id": words.bos_token_id}
    LlamaForCausalLM(
        LlamaConfig(vocab_size=len(words), initializer_range=0.3, tie_word_embeddings=True, **sizes, **special)
    ).save_pretrained(path)
    words.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("pocket")
    return {name: folder(root / name, name == "tuned") for name in ("base", "tuned")}


@pytest.fixture(scope="module", params=["base", "tuned"])
def llm(models, request):
    return cells.load(str(models[request.param]), request.param == "tuned")


def data_of(llm, task="sentiment_analysis", seed=0):
    data = MERADataModule(PocketTask(task, chat=llm.chat), 200, 80, 100, seed=seed)
    data.setup()
    return data


def test_decisions_are_the_scores_of_the_language_model(llm):
    data = data_of(llm)
    batch = cells.questions(data, data.test)
    decisions = Decisions(llm, batch, rows_at_once=30)
    observed, h = llm.observe(batch)
    torch.testing.assert_close(decisions.base.log_softmax(-1), observed.log_softmax(-1), rtol=0, atol=1e-4)
    for layer, site in enumerate(llm.sites):
        torch.testing.assert_close(decisions.h[layer], h[site], rtol=0, atol=1e-4)
    error = (
        1
        - label_probabilities(observed, torch.arange(3))[torch.arange(100), torch.tensor([e.label for e in data.test])]
    )
    alphas = [0.9, 0.3, 0.05]
    for layers in ([2], [0], [0, 2]):
        maps = {
            layer: MERA(32, mahalanobis=True).fit(
                Activations(decisions.h[layer], error.float(), torch.zeros(100, 1, dtype=torch.int64), False)
            )
            for layer in layers
        }
        edits = {llm.site(k): (lambda x, m=m: m(x, torch.tensor(alphas))) for k, m in maps.items()}
        expected = llm.scores(batch, edits, 3).log_softmax(-1)
        scores = decisions.scores(maps, alphas).log_softmax(-1)
        torch.testing.assert_close(scores, expected, rtol=0, atol=2e-3)
        assert (scores[2] - scores[0]).abs().max() > 1e-2
        steered, h_top = decisions.observe(maps, 0.3, 2)
        torch.testing.assert_close(steered.log_softmax(-1), scores[1], rtol=0, atol=1e-4)
        again = decisions.scores({}, [1.0])[0]
        assert torch.equal(again, decisions.base)  # nothing stays behind
        if layers == [2]:  # as it arrives, before its own map
            torch.testing.assert_close(h_top, decisions.h[2], rtol=1e-4, atol=1e-4)
        else:
            assert (h_top - decisions.h[2]).abs().max() > 1e-2


def test_decisions_want_answers_of_one_token(llm):
    with pytest.raises(ValueError, match="a decision is one token"):
        Decisions(llm, [MultipleChoice("Marked by Anna.", (" ham spam", " ham"))])
    with pytest.raises(ValueError, match="the same for all"):
        Decisions(
            llm, [MultipleChoice("Marked by Anna.", (" ham", " spam")), MultipleChoice("Answer:", (" Yes", " No"))]
        )


def test_a_fitted_bias_undoes_a_planted_one():
    g = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(4000, 3, generator=g)
    y = torch.distributions.Categorical(logits=logits).sample()
    shift = torch.tensor([2.0, -1.0, 0.5])
    bias = controls.fitted_bias((logits + shift).log_softmax(-1), y)
    torch.testing.assert_close(bias, (shift.mean() - shift).double(), rtol=0, atol=0.15)


def test_a_contextual_bias_makes_labels_as_likely_on_average():
    logp = (
        torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) / 10 + torch.tensor([3.0, 0.0, 0.0])
    ).log_softmax(-1)
    weighed = (logp + controls.contextual_bias(logp)).softmax(-1).mean(0)
    torch.testing.assert_close(weighed, torch.full((3,), 1 / 3).double(), rtol=0, atol=0.02)


def test_constant_class_is_the_most_frequent_of_training():
    assert controls.constant_class(torch.tensor([0, 2, 2, 1]), torch.zeros(5, 3)).tolist() == [2] * 5


@pytest.fixture(scope="module")
def study(models, tmp_path_factory):
    """The whole command on random models, one part in this process."""
    out = tmp_path_factory.mktemp("logs")
    small = ["--models-in", str(models["base"].parent), "--out", str(out), "--seeds", "2", "--processes", "1"]
    small += ["--tasks", "sms_spam", "sentiment_analysis", "--mixtures", "balanced"]
    return out, small


class Here:
    """A pool that works at once, in this process."""

    def __init__(self, *_args):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_args):
        pass

    def submit(self, function, *args):
        from concurrent.futures import Future

        job = Future()
        job.set_result(function(*args))
        return job


def test_the_command_writes_reports_and_a_table_and_goes_on_where_it_was(study, monkeypatch, capsys):
    out, small = study
    monkeypatch.setattr(command, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(settings, "TRAIN", 240)
    monkeypatch.setattr(settings, "CALIBRATION", 60)
    monkeypatch.setattr(settings, "TEST", 80)
    monkeypatch.setattr(settings, "NEUTRAL", 3)
    monkeypatch.setattr(settings, "FIRST_DRAW", 0)
    monkeypatch.setattr(cells, "SEQUENTIAL_ROWS", 100)
    assert command.main(small) == 0
    table = capsys.readouterr().out
    reports = sorted(out.rglob("report.json"))
    names = {json.loads(path.read_text())["method"] for path in reports}
    assert len(names) >= 12 + 3
    assert len(reports) == 2 * 2 * len(names)
    for path in reports:
        report = json.loads(path.read_text())
        metrics = report["metrics"]
        assert {"experiment", "task", "backbone", "method", "seed", "metrics"} <= report.keys()
        assert {"spi", "accuracy_base", "accuracy", "balanced_accuracy", "mcc", "certified_bound"} <= metrics.keys()
        assert report["draws"] == metrics["spi"]["n"] == 2
        if metrics["certified"]["value"] == 0:  # who abstains changes nothing
            assert metrics["spi"]["value"] == 0
            assert metrics["accuracy"]["value"] == metrics["accuracy_base"]["value"]
            assert metrics["certified_bound"]["value"] == 0
        assert all(name in table for name in names)
    part = next((out / "parts").iterdir())
    stamp = part.stat().st_mtime_ns
    monkeypatch.setattr(cells, "part", None)  # nothing is left to do
    assert command.main(small) == 0
    assert part.stat().st_mtime_ns == stamp
    assert {path.suffix for path in out.glob("*_balanced.*")} == {".png", ".svg"}


def test_a_missing_model_is_said_in_a_sentence(tmp_path, capsys):
    assert command.main(["--models-in", str(tmp_path)]) == 2
    assert "there is no model in" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["--seeds", "0"], ["--processes", "0"], ["--tasks", "chess"]])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(SystemExit):
        command.main(wrong)


def test_over_draws_is_the_range_of_few_draws():
    ranges = estimates.over_draws([0.1, 0.3, None, float("nan"), 0.2])
    assert ranges["n"] == 3
    assert ranges["value"] == pytest.approx(0.2)
    assert estimates.shown(ranges) == "0.20 (0.10 to 0.30)"


# ---- choosing probes


def test_selection_finds_the_layer_and_sparsity_that_were_planted():
    g = torch.Generator().manual_seed(0)
    h = torch.randn(3, 600, 40, generator=g)
    target = (h[1, :, :3].sum(1) + 0.5 * torch.randn(600, generator=g)).double()
    selected = select(Moments_of(h, target))
    assert int(selected.score.argmax()) == 1
    assert PENALTIES[int(selected.best[1])] in (0.1, 0.05, 0.01)
    assert selected.score[1] > 0.85
    assert (selected.score[[0, 2]] < 0.05).all()
    assert (selected.gap <= 1e-6).all()
    torch.testing.assert_close(selected.chosen.weight[1, :3], torch.ones(3).double(), rtol=0, atol=0.25)


def Moments_of(h, target):
    from lightning_steer.probes.moments import Moments

    return Moments.like(h, target, 5).add(h, target, torch.arange(h.shape[1]) % 5)


@pytest.mark.parametrize("penalties", [[], [-0.1], [float("nan")], [float("inf")]])
def test_wrong_penalties_are_refused(penalties):
    h = torch.randn(1, 40, 3)
    with pytest.raises(ValueError, match="penalties are positive numbers, or 0"):
        select(Moments_of(h, torch.randn(40).double()), penalties)
