"""The fidelity study on tiny random models: its algebra against loops, parts that resume, pages from the numbers."""

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lightning_steer import studies
from lightning_steer.data.pocket.module import vocabulary
from lightning_steer.data.pocket.tasks import NAMES as TASKS
from lightning_steer.data.pocket.text import CHAT_TEMPLATE, tokenizer
from lightning_steer.metrics.stereoset import ANTI, STEREOTYPE
from lightning_steer.metrics.stereoset_effect import effect_rows
from lightning_steer.report.runs import read
from lightning_steer.statistics.estimate import BY_DEFINITION, Estimate
from lightning_steer.studies.fidelity import anisotropy, behaviours, families, ground_truth, runs, sweep
from lightning_steer.studies.fidelity import document as fidelity
from lightning_steer.studies.fidelity.settings import ARMS, StudyScale
from lightning_steer.studies.fidelity.study import main
from lightning_steer.studies.fidelity.subject import Subject, added, directions, split

SCALE = StudyScale(draws=3, strengths=(-1.0, 0.0, 1.0, 2.0), layers=(1, 2, 3))
ZERO = torch.zeros(1, 1)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders, words = {}, tokenizer(vocabulary(), CHAT_TEMPLATE)
    for seed, name in enumerate(("base", "tuned")):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(words),
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=5,
            num_attention_heads=2,
            initializer_range=0.4,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
        folders[name] = tmp_path_factory.mktemp(name)
        LlamaForCausalLM(config).save_pretrained(folders[name])
        words.save_pretrained(folders[name])
    return folders


@pytest.fixture(scope="module")
def subject(models: dict[str, Path]) -> Subject:
    return Subject(ARMS[0], models, "town")


def test_all_candidates_in_one_pass_are_each_by_itself(subject: Subject) -> None:
    site = subject.llm.sites[2]
    every = subject.shifts(site, SCALE.strengths, SCALE.draws)
    assert len(every) == 4 + 3 * 2
    together = added(subject.llm, subject.test.contrasts, site, every)
    for i in (0, 2, 5, 9):
        torch.testing.assert_close(together[i], added(subject.llm, subject.test.contrasts, site, every[i : i + 1])[0])
    torch.testing.assert_close(together[1], added(subject.llm, subject.test.contrasts, None, ZERO)[0])
    v = subject.vectors[site]
    torch.testing.assert_close(every[3], 2 * v)
    torch.testing.assert_close(every[4:].norm(dim=1), v.norm() * torch.tensor([1.0, 2] * 3))
    torch.testing.assert_close(every[5], 2 * every[4])  # a draw keeps its direction


def test_no_term_is_in_both_vector_and_test_and_chats_have_the_same_terms(subject: Subject) -> None:
    parts = [{example.target for example in part.examples} for part in (subject.fit, subject.select, subject.test)]
    assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
    assert {example.target for example in split("town", True, 2).examples} == parts[2]


def test_negative_strengths_are_meant_to_promote() -> None:
    g = torch.Generator().manual_seed(0)
    base, scores = torch.randn(30, 3, generator=g), torch.randn(3, 30, 3, generator=g)
    along = sweep.along(base, scores, (-1.0, 0.5, 1.0))
    torch.testing.assert_close(along["intended"][:, 0], effect_rows(base, scores[:1], ANTI, STEREOTYPE)["intended"][0])
    torch.testing.assert_close(along["intended"][:, 2], effect_rows(base, scores[2:])["intended"][0])


def test_the_published_pattern_is_above_zero_where_it_was_planted() -> None:
    base = torch.tensor([[0.0, -1, 1], [1.0, 0, -1]])
    unrelated_falls, stereotype_falls = base.clone(), base.clone()
    unrelated_falls[:, 2] -= 3
    stereotype_falls[:, 0] -= 3
    rows = sweep.rows_of(base, torch.stack([base, unrelated_falls, stereotype_falls]), "suppress")
    assert rows["pattern_nats"].mean(1).tolist() == [0, 3, -3]
    assert rows["pattern_shares"].mean(1).tolist() == [0, 1, -0.5]


def test_a_run_is_chosen_on_other_terms_and_ties_go_to_the_weaker() -> None:
    part = {"layers": [1, 2], "strengths": [-1.0, 0.0, 0.5, 1.0]}
    part["select"] = {"1": [0.9, 0.0, 0.2, 0.2], "2": [0.1, 0.0, 0.1, 0.2]}
    assert runs.chosen(part, "suppress") == (1, 2, 0.5)
    assert runs.chosen(part, "promote") == (1, 0, -1.0)


def test_true_values_are_means_over_all_sentences_and_words() -> None:
    g = torch.Generator().manual_seed(0)
    logp = torch.randn(3, 5, 20, generator=g).log_softmax(-1)
    values = ground_truth.true_values(logp, (-1.0, 1.0))
    chosen = [0.0, 0.0]
    for c in (0, 1):
        for row in logp[c + 1]:
            for pair in range(6):
                for odd in range(8):
                    stereotype, anti, unrelated = row[pair], row[6 + pair], row[12 + odd]
                    chosen[c] += float(stereotype > anti and stereotype > unrelated) / (5 * 6 * 8)
    assert values["p_stereotype"] == pytest.approx(chosen)
    share = torch.sigmoid(logp[1:, :, :6] - logp[1:, :, 6:12]).mean((1, 2))
    assert values["share"] == pytest.approx(share.tolist())
    assert values["mass_stereotype"] == pytest.approx(logp[1:, :, :6].exp().sum(-1).mean(1).tolist())


def test_the_population_holds_every_sentence_of_the_items(subject: Subject) -> None:
    targets = {example.target for example in subject.test.examples}
    every = {example.prompt for example in ground_truth.population("town", targets)}
    assert {example.context for example in subject.test.examples} <= every


def test_words_taken_alone_agree_with_whole_sentences(subject: Subject) -> None:
    """The item's score differs from its word's by the same begin and end: choices of the population are the items'."""
    site, llm = subject.llm.sites[2], subject.llm
    targets = {example.target for example in subject.test.examples}
    contexts = {example.context for example in subject.test.examples[:20]}
    examples = [example for example in ground_truth.population("town", targets) if example.prompt in contexts]
    logp = ground_truth.words(subject, site, examples, (1.0,))
    place = {(example.prompt, example.begun): i for i, example in enumerate(examples)}
    base = added(llm, subject.test.contrasts, None, ZERO)[0]
    for n, example in enumerate(subject.test.examples[:20]):
        *begun, word = example.stereotype.removesuffix(".").split()
        row, pair = place[example.context, " ".join(begun)], examples[0].words.index(word)
        ids = llm.tokenizer(example.context + " " + example.stereotype)["input_ids"]
        full = llm.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        length = len(llm.tokenizer(example.stereotype, add_special_tokens=False)["input_ids"])
        start = len(ids) - length
        parts = [float(full[i - 1, ids[i]]) for i in range(start, len(ids))]
        assert float(base[n, 0]) == pytest.approx(sum(parts) / length, abs=1e-5)
        assert float(logp[0, row, pair]) == pytest.approx(parts[-2], abs=5e-5)


def test_curves_are_read_off_straight_lines() -> None:
    assert families.crossing([0.05, 0.15, 0.3], 0.1) == (1, pytest.approx(0.5))
    assert families.crossing([0.2, 0.3], 0.1) == (0, pytest.approx(0.5))
    assert families.crossing([0.01, 0.02], 0.1) is None
    column = torch.tensor([[0.0, 1.0, 3.0]])
    assert float(families.between_strengths(column, (1, 0.5))) == 2.0
    assert float(families.between_strengths(column, (0, 0.25))) == 0.25


def test_what_is_taken_out_is_out_and_the_length_stays(subject: Subject) -> None:
    site = subject.llm.sites[2]
    u = anisotropy.axes(torch.randn(50, 16, generator=torch.Generator().manual_seed(0)) + 2)
    v = subject.vectors[site]
    for axis in u.values():
        rest = anisotropy.without(v, axis)
        assert float(rest @ axis) == pytest.approx(0, abs=1e-5)
        assert float(rest.norm()) == pytest.approx(float(v.norm()), rel=1e-5)
        assert float(axis.norm()) == pytest.approx(1, abs=1e-5)
    steered = anisotropy.steered(subject, site, u, 1.0, 3 * v.norm())
    torch.testing.assert_close(
        steered[anisotropy.LENGTH][1], added(subject.llm, subject.test.contrasts, site, 3 * v[None])
    )
    torch.testing.assert_close(steered["plain"][1], added(subject.llm, subject.test.contrasts, site, v[None]))
    torch.testing.assert_close(steered["plain"][0], added(subject.llm, subject.test.contrasts, None, ZERO))
    questions, top = list(subject.test.contrasts.questions), u["top"]
    for shift, scores in ((0 * v, steered["stream without top"][0]), (v, steered["stream without top"][1])):
        edits = {site: lambda h, shift=shift: h - (h @ top).unsqueeze(-1) * top + shift}
        torch.testing.assert_close(scores, subject.llm.scores(questions, edits), rtol=1e-4, atol=1e-4)
    assert len(steered["stream without random"][1]) == anisotropy.CONTROLS


def test_random_directions_have_the_length_that_was_asked_for() -> None:
    drawn = directions(20, 16, 3.0)
    torch.testing.assert_close(drawn.norm(dim=1), torch.full((20,), 3.0))
    assert torch.equal(drawn[:4], directions(4, 16, 3.0))
    assert float((drawn @ drawn.T / 9).fill_diagonal_(0).abs().max()) < 0.95


def test_the_tuned_model_is_judged_as_a_method(models: dict[str, Path]) -> None:
    part = behaviours.run(models, "tuned", "myopia", False, SCALE, 2)
    own = behaviours.run(models, "base", "myopia", False, SCALE, 2)
    assert "as_a_method" not in own
    changes = part["as_a_method"]["estimates"]
    assert changes["margin"][0] - changes["margin_change"][0] == pytest.approx(
        own["curves"]["margin"][SCALE.strengths.index(0.0)][0]
    )
    assert len(part["random_figure"][0]) == 2 * part["prompts"]
    assert changes["margin"][3:5] == [part["prompts"], part["topics"]]
    for quarter in part["as_a_method"]["table"]:
        for _, low, high, *_, how in quarter:
            assert math.isnan(low)
            assert math.isnan(high)
            assert how.startswith("none: ")
    zero = SCALE.strengths.index(0.0)
    for name in ("margin_change", "positive_change", "auc_change", "cohens_d_change"):
        assert (part["curves"][name][zero][0], part["curves"][name][zero][-1]) == (0, BY_DEFINITION)
        assert part["curves"][name][zero + 1][1] < part["curves"][name][zero + 1][2]
    assert part["curves"]["auc"][zero][1] < part["curves"]["auc"][zero][2]
    assert part["drift"]["reference_kl"][zero][-1] == BY_DEFINITION
    assert part["kl"][zero] == pytest.approx(0, abs=1e-6)


def test_a_run_stands_beside_the_range_of_its_draws(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """From a stored sweep, in which null stands for what is not finite."""
    monkeypatch.setattr(runs, "PROMPTS", 6)
    here, known = [0.2, 0.1, 0.3, 144, 24, "t over clusters (CR2)"], [0.0, None, None, 144, 24, BY_DEFINITION]
    tail = [0.3, 0.1, None, 1552, 64, "order statistics, no upper end"]
    names = (*runs.HEADLINE, *runs.ALSO)
    stored = {
        "layers": [2],
        "strengths": [-1.0, 0.0, 1.0],
        "select": {"2": [0.1, 0.0, 0.2]},
        "steered": {"2": {name: [here, known if name == "fidelity" else here, here] for name in names}},
        "drift": {"2": {"reference_kl": [here] * 3, "reference_kl_p95": [tail] * 3}},
        "random": {"2": {aim: {"fidelity": [[0.1], [-0.3], [0.2]]} for aim in ("suppress", "promote")}},
    }
    report = runs.report(ARMS[0], models, "town", "suppress", stored, SCALE)
    random = report["baselines"]["random_control"]["fidelity"]
    assert random == {
        "value": 0.1, "low": -0.3, "high": 0.2, "n": 3, "clusters": None, "how": "range of random draws", "p": 0.5,
        "higher_is_better": True,
    }  # fmt: skip
    assert report["metrics"]["fidelity"] == dict(zip(Estimate._fields, here, strict=True))
    unsteered = report["baselines"]["baseline"]["fidelity"]
    assert (unsteered["value"], unsteered["how"], unsteered["clusters"]) == (0, BY_DEFINITION, 24)
    assert math.isnan(unsteered["low"])
    assert math.isnan(report["metrics"]["reference_kl_p95"]["high"])
    assert report["metrics"]["strength"]["how"] == "none: it was chosen"
    for task in TASKS:
        name = f"flips_{task}"
        metric, draws = report["metrics"][name], report["baselines"]["random_control"][name]
        assert (metric["n"], metric["clusters"], metric["how"]) == (6, None, "exact (Clopper-Pearson)")
        assert metric["low"] <= metric["value"] < metric["high"] or metric["value"] == metric["high"] == 1
        assert (draws["n"], draws["how"]) == (SCALE.draws, "range of random draws")
    assert report["metrics"]["entanglement"]["n"] == 6 * len(TASKS)


@pytest.mark.slow
def test_parts_are_made_once_and_become_pages(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lightning_steer.studies.fidelity.study.QUICK", SCALE)
    monkeypatch.setattr("lightning_steer.studies.fidelity.study.BEHAVIOURS", ("myopia",))
    monkeypatch.setattr("lightning_steer.studies.fidelity.study.BIAS_TYPES", ("town",))
    monkeypatch.setattr("lightning_steer.studies.fidelity.runs.PROMPTS", 8)
    argv = ["--quick", "--base", str(models["base"]), "--tuned", str(models["tuned"]), "--out", str(tmp_path)]
    assert main(argv) == 0
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").glob("*.json")}
    assert "Is what is unrelated suppressed more than stereotypes?" in capsys.readouterr().out
    reports = read(tmp_path)
    assert {report["run"] for report in reports} == {
        f"{arm}-town-{aim}" for arm in ("base", "tuned", "tuned-base_vector") for aim in ("suppress", "promote")
    }
    needed = {"ss", "lms", "icat", "p_stereotype", "p_anti", "p_unrelated", "fidelity", "reference_kl", "entanglement"}
    test = Subject(ARMS[0], models, "town").test
    examples, terms = len(test.examples), len(test.term.unique())
    for report in reports:
        assert needed <= report["metrics"].keys()
        for name, metric in report["metrics"].items():
            if name in ("layer", "strength"):
                assert (metric["low"], metric["high"], metric["how"]) == (None, None, "none: it was chosen")
            elif metric["how"].startswith("none: "):  # few rows may carry it
                assert name in {"reference_kl", "perplexity_ratio"} | {
                    n for n in report["metrics"] if n.startswith("kl_")
                }
                assert (metric["low"], metric["high"]) == (None, None)
            else:
                assert metric["low"] <= metric["value"] + 1e-9 <= metric["high"] + 2e-9, name
        assert (report["metrics"]["fidelity"]["n"], report["metrics"]["fidelity"]["clusters"]) == (examples, terms)
        assert report["metrics"]["reference_kl"]["n"] == 64
        assert (report["metrics"]["flips_sms_spam"]["n"], report["metrics"]["flips_sms_spam"]["clusters"]) == (8, None)
        unsteered, random = report["baselines"]["baseline"], report["baselines"]["random_control"]
        assert (unsteered["fidelity"]["value"], unsteered["fidelity"]["how"]) == (0, BY_DEFINITION)
        assert unsteered["p_anti"]["low"] is not None
        for name, draws in random.items():
            assert draws["low"] <= draws["value"] <= draws["high"], name
            assert (draws["n"], draws["how"]) == (SCALE.draws, "range of random draws")
            if draws["higher_is_better"] is None:
                assert draws["p"] is None, name  # neither direction is wanted as such
                continue
            assert draws["p"] in [(1 + reached) / (1 + SCALE.draws) for reached in range(SCALE.draws + 1)]
    for name in ("shares-town", "heatmap-town", "icat-town", "methods-town", "anisotropy", "truth", "dose_response"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
    page = (tmp_path / "fidelity.md").read_text()
    assert "| base-town-suppress |" in page
    assert f"{examples} examples in {terms} target terms" in page
    assert page.count("95 %") == 1  # of intervals, never of random directions
    assert main(argv) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").glob("*.json")} == times
    broken = next(path for path in times if path.name.startswith("truth-base"))
    broken.write_text(json.dumps({**json.loads(broken.read_text()), "settings": {}}))
    assert main(argv) == 0
    assert json.loads(broken.read_text())["settings"]
    assert fidelity.figures({}) == {}


def test_what_is_not_there_is_said_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--base", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert f"no base model in {tmp_path}: train it with `make pocket`" in capsys.readouterr().err


def test_other_processes_can_import_the_work() -> None:
    """Spawned processes do not run a package's ``__main__``, so they cannot find functions that are defined there."""
    for path in Path(studies.__file__).parent.rglob("__main__.py"):
        assert "side_by_side" not in path.read_text(), path
