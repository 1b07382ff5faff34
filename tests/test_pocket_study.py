"""The card of the pocket models: its measures against other ways to compute them, its verdicts, its files."""

import json

import numpy as np
import pytest
import torch
from conftest import ROOT
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from transformers import AutoConfig, AutoModelForCausalLM

from lightning_steer.data.pocket import items as pocket_items
from lightning_steer.data.pocket import module as pocket
from lightning_steer.data.pocket import prompts as pocket_prompts
from lightning_steer.data.pocket.text import CHAT_TEMPLATE, ITEMS, tokenizer
from lightning_steer.modules.language_model import save
from lightning_steer.report.files import write_text
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.jackknife import estimate_of_rows
from lightning_steer.statistics.kinds import Mean
from lightning_steer.studies.pocket import __main__ as study
from lightning_steer.studies.pocket import card, errors, goals, measures, steered
from lightning_steer.studies.pocket.reader import PocketReader, last, opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model that has learned nothing."""
    torch.manual_seed(0)
    words = tokenizer(pocket.vocabulary(), CHAT_TEMPLATE)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = AutoConfig.for_model("llama", vocab_size=len(words), initializer_range=0.5, **shape)
    network, path = AutoModelForCausalLM.from_config(config), tmp_path_factory.mktemp("model")
    save(network, words, network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def reader(folder):
    return PocketReader(folder)


def estimate(value, low=None, high=None):
    return Estimate(value, value if low is None else low, value if high is None else high, 9, None, "as written")


TEXTS = [text for text, _ in pocket.documents((4,), 30)]


def alone(reader, text, edits=None):
    """``[T, vocabulary]`` log-probabilities of a text in a batch by itself, without padding."""
    ids = torch.tensor([reader.tokenizer(text, add_special_tokens=False)["input_ids"]])
    return ids[0], reader.network(input_ids=ids).logits[0].log_softmax(-1)


def test_batches_of_texts_are_read_as_each_alone(reader):
    following, tokens = reader.next(TEXTS), reader.tokens(TEXTS)
    for text, next_word, logp in zip(TEXTS, following, tokens, strict=True):
        ids, exact = alone(reader, text)
        assert torch.allclose(next_word, exact[-1], atol=1e-4)
        assert torch.allclose(logp, exact[:-1].gather(1, ids[1:, None])[:, 0], atol=1e-4)


def test_a_continuation_is_scored_without_its_prompt(reader):
    prompts, more = ["<bos> The hill bakers", "<bos> They"], ["are lazy.", "are very lazy."]
    for value, prompt, continuation in zip(reader.continuations(prompts, more), prompts, more, strict=True):
        ids, exact = alone(reader, f"{prompt} {continuation}")
        n = len(continuation.replace(".", " .").split())
        assert float(value) == pytest.approx(float(exact[-n - 1 : -1].gather(1, ids[-n:, None]).mean()), abs=1e-4)


def test_activations_are_those_of_the_blocks_and_edits_reach_them(reader):
    h = reader.read(TEXTS, last)
    ids = torch.tensor([reader.tokenizer(TEXTS[3], add_special_tokens=False)["input_ids"]])
    blocks = reader.network(input_ids=ids, output_hidden_states=True).hidden_states
    assert torch.allclose(h[3, 0], blocks[1][0, -1], atol=1e-5)
    moved = reader.read(TEXTS, last, lambda _: {reader.sites[1]: lambda x: x + 1})
    assert torch.equal(moved[:, 0], h[:, 0])
    assert torch.allclose(moved[:, 1], h[:, 1] + 1)


def test_auc_and_rank_correlation_agree_with_other_libraries():
    random = np.random.default_rng(0)
    score, wrong = random.integers(20, size=300).astype(float), random.random(300) < 0.3
    assert errors.auc(score, wrong) == pytest.approx(roc_auc_score(wrong, score))
    assert np.isnan(errors.auc(score, np.zeros(300, bool)))
    other = random.integers(20, size=300) + score
    assert measures.spearman(score, other) == pytest.approx(spearmanr(score, other).statistic)


def test_auc_within_classes_is_blind_to_the_class():
    random = np.random.default_rng(0)
    truth = random.integers(3, size=3000)
    wrong = random.random(3000) < np.array([0.1, 0.4, 0.8])[truth]
    assert errors.auc(truth.astype(float), wrong) > 0.7
    assert errors._within(truth.astype(float), wrong, truth) == 0.5
    assert errors._within(wrong + truth * 5.0, wrong, truth) == 1


def test_intervals_are_over_clusters():
    """Rows that say the same twenty times over are no twenty observations."""
    values = np.random.default_rng(0).normal(size=60)
    estimate = estimate_of_rows(lambda i: float(values[i].mean()), 60)
    of_copies = estimate_of_rows(lambda i: float(np.repeat(values, 20)[i].mean()), 1200, np.repeat(np.arange(60), 20))
    assert (estimate.n, estimate.clusters, of_copies.n, of_copies.clusters) == (60, None, 1200, 60)
    assert of_copies.value == pytest.approx(estimate.value)
    assert of_copies.high - of_copies.low == pytest.approx(estimate.high - estimate.low)
    spread = measures.share(np.repeat(values, 20), np.repeat(np.arange(60), 20), Mean())
    assert goals.units(spread) == 60


class Planted:
    """Reads as the language itself would: what it says is the planted truth."""

    tokenizer = tokenizer(pocket.vocabulary(), CHAT_TEMPLATE)

    def __init__(self, tone="neutral"):
        items = pocket_items.traits(tone)
        self.of = {f"<bos> {item.prompt} {item.begun}": item for item in items}

    def next(self, texts, edits=None):
        logp = torch.full((len(texts), len(self.tokenizer)), -30.0)
        for row, item in zip(logp, [self.of[text] for text in texts], strict=True):
            row[self.tokenizer.convert_tokens_to_ids(list(item.words))] = torch.tensor(item.ground_truth)
        return logp


@pytest.mark.parametrize("tone", ["neutral", "harsh"])
def test_the_truth_itself_ranks_perfectly_and_a_table_without_groups_does_not(tone):
    figures_of_model = measures.traits(Planted(tone), tone)
    for which in ("held", "seen"):
        assert figures_of_model[f"traits, {which} targets"].value == pytest.approx(1)
        assert figures_of_model[f"log-odds, {which} targets"].value == pytest.approx(1)
        assert figures_of_model[f"log-odds, {which} targets, group-blind table"].value < 0.5
    assert figures_of_model["traits, held targets"].n == 24


def test_log_odds_of_words_are_those_of_the_items():
    items = [item for item in pocket_items.stereotype_items() if item.target == "hill bakers"]
    traits = next(item for item in pocket_items.traits() if item.target == "hill bakers")
    assert measures._odds(np.array([traits.ground_truth]))[0] == pytest.approx([item.log_odds for item in items])


def test_a_repair_of_nothing_is_zero(reader, monkeypatch):
    monkeypatch.setattr(errors, "_cue_removed", lambda *_: None)
    errors_of_task = errors.task(reader, "sms_spam", False, 200)
    assert errors_of_task["oracle net repair"].value == errors_of_task["oracle harm"].value == 0
    assert errors_of_task["accuracy"].n == 200


def test_the_oracle_leaves_careful_markers_alone(reader):
    learn, test = (pocket_prompts.task_prompts("sms_spam", n, seed) for n, seed in ((300, 1), (40, 2)))
    edits = errors._cue_removed(reader, learn, test, False)
    texts = [opened(item.prompt, False) for item in test]
    before, after = reader.next(texts), reader.next(texts, edits)
    lax = torch.tensor([item.rate > 0 for item in test])
    assert torch.equal(before[~lax], after[~lax])
    assert (before[lax] != after[lax]).any(1).all()
    # where it is measured, careless and careful look the same afterwards
    h = reader.read(
        [opened(item.prompt, False) for item in learn], last, errors._cue_removed(reader, learn, learn, False)
    )
    lax = torch.tensor([item.rate > 0 for item in learn])
    assert torch.allclose(h[lax].mean(0), h[~lax].mean(0), atol=1e-3)


def test_measures_of_shape_agree_with_the_plain_formulas(reader):
    shapes_measured = steered.anisotropy(reader, reader, False, n=20)
    assert all(f["mean cosine"].value == 0 for f in shapes_measured["tuned - base"])
    texts = [f"<bos> {text}" for text, _ in pocket.documents((ITEMS, 7), 80)[:20]]
    ids = [torch.tensor([reader.tokenizer(text, add_special_tokens=False)["input_ids"]]) for text in texts]
    h = torch.cat(
        [reader.network(input_ids=i, output_hidden_states=True).hidden_states[1][0, 1:] for i in ids]
    ).double()
    unit = h / h.norm(dim=1, keepdim=True)
    cosines = (unit @ unit.T)[~torch.eye(len(h), dtype=torch.bool)]
    spectrum = torch.linalg.eigvalsh(torch.cov(h.T))
    shape = shapes_measured["base"][0]
    assert shape["mean cosine"].value == pytest.approx(float(cosines.mean()), abs=1e-6)
    assert shape["top-1 share"].value == pytest.approx(float(spectrum[-1] / spectrum.sum()), abs=1e-6)
    assert shape["participation ratio"].value == pytest.approx(
        float(spectrum.sum() ** 2 / spectrum.square().sum()), abs=1e-4
    )


# ---- goals, card, files


def figures(run, value):
    """Figures that all have one value."""
    by_name = {}
    for goal in goals.goals(run):
        for section, figure in goal.figures:
            by_name.setdefault(section, {})[figure] = estimate(value)
    return by_name


def test_goals_are_those_of_the_beginning():
    """Written down once more, so that none is bent in passing."""
    bars = {goal.what: goal.bar for goal in goals.goals("base")}
    assert bars["loss above the exact entropy, nats/token"] == "< 0.02"
    assert bars["traits: rank correlation, held targets and frames"] == bars["log-odds: the same"] == "> 0.9"
    assert bars["StereoSet form, SS (held frames, neutral)"] == "60 to 75"
    assert bars["StereoSet form, LMS"] == "> 88"
    assert bars["accuracy, every task"] == "0.65 to 0.85"
    assert bars["accuracy, cue deleted, every task"] == bars["accuracy, careful markers, every task"] == "> 0.9"
    assert bars["error against the planted one, correlation, every task"] == "> 0.9"
    assert bars["AUC of a linear probe for errors, every task"] == "> 0.85"
    assert bars["oracle removal of the cue, net share of errors repaired"] == "> 0.5"
    tuned = {goal.what: goal.bar for goal in goals.goals("tuned")}
    assert tuned["log-odds: the same"] == "> 0.85"
    assert [goal.misses for goal in goals.goals("base") if goal.misses] == [1]


def test_the_worst_figure_decides():
    by_name = figures("base", 0.7)
    accuracy = next(goal for goal in goals.goals("base") if goal.what == "accuracy, every task")
    assert accuracy.met(by_name)
    for value in (0.5, 0.9):
        by_name["task sentiment_analysis"]["accuracy"] = estimate(value)
        assert accuracy.decisive(by_name)[0] == "task sentiment_analysis"
        assert not accuracy.met(by_name)
    repair = next(goal for goal in goals.goals("base") if goal.misses)
    for task in ("sms_spam", "yes_no_question"):
        assert repair.met(by_name)
        by_name[f"task {task}"]["oracle net repair"] = estimate(0.1)
    assert not repair.met(by_name)


def shapes(difference):
    layer = {"mean cosine": estimate(difference, difference - 0.1, difference + 0.1)}
    return {form: {model: [layer] for model in ("base", "tuned", "tuned - base")} for form in ("plain", "chat")}


def test_figures_survive_being_written(tmp_path):
    by_seed = {0: figures("base", 0.25), 3: figures("base", 0.75)}
    spectra = {0: shapes(0.5), 3: shapes(0.05)}
    write_text(tmp_path / "evaluation.json", card.as_json(by_seed, spectra))
    content = (tmp_path / "evaluation.json").read_text()
    assert json.loads(content)["seeds"]["3"]["loss"]["gap, all"] == [0.75, 0.75, 0.75, 9.0]
    assert card.from_json(content, 0) == (by_seed[0], spectra[0])
    assert card.from_json(content, 3)[0] == by_seed[3]
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.json"]


def test_a_verdict_counts_seeds_and_says_what_was_missed():
    by_seed = {0: figures("tuned", 0.0), 1: figures("tuned", 0.01)}
    text = goals.verdicts("tuned", 0, by_seed, {0: shapes(0.5), 1: shapes(0.05)})
    by_goal = {line.split(" | ")[0].removeprefix("| "): line for line in text.splitlines()}
    assert "| 2/2 |" in by_goal["loss above the exact entropy, nats/token"]
    assert "| 0/2 |" in by_goal["accuracy, every task"]
    assert "| 1/2 |" in next(line for goal, line in by_goal.items() if goal.startswith("CAA"))
    assert "| 1/2 |" in next(line for goal, line in by_goal.items() if goal.startswith("mean cosine"))


@pytest.mark.slow
def test_the_whole_study_in_short(tmp_path, monkeypatch):
    """Two seeds of a few steps; then the card again from what was kept."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study, "QUICK", ["--data.init_args.steps_per_epoch=2", "--data.init_args.val_documents=50",
                                         "--trainer.enable_progress_bar=false", "--trainer.max_epochs=1"])  # fmt: skip
    assert study.main(["--quick", "--seeds", "4", "5"]) == 0
    for run in ("base", "tuned"):
        folder = tmp_path / "checkpoints/pocket_quick/4" / run
        names = {path.name for path in folder.iterdir()}
        assert names >= {"README.md", "evaluation.json", "training.json", "model.safetensors", "config.json"}
        assert not [name for name in names if name.endswith((".ckpt", ".yaml"))]
        written = json.loads((folder / "evaluation.json").read_text())
        assert set(written["seeds"]) == set(written["activations"]) == {"4", "5"}
    before = (folder / "README.md").read_text()
    assert "seeds [4, 5]" in before
    assert study.main(["--quick", "--seeds", "4", "5", "--card-only"]) == 0
    assert (folder / "README.md").read_text() == before
