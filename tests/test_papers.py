"""The papers' experiments: files, costs, published cells, what is kept, and what is said where something lacks."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_papers
import torch
from conftest import ROOT

from lightning_steer.data import MERADataModule
from lightning_steer.data.behaviours.sources import HalvesFile
from lightning_steer.data.mera import generated_answers
from lightning_steer.data.mera.tasks import SmsSpam
from lightning_steer.errors import UserError
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import TokenAt, TokensFrom
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.plan import experiment
from lightning_steer.plan.__main__ import main as plan
from lightning_steer.plan.known import KNOWN
from lightning_steer.studies.papers import caa, likelihood, mera, page, refusal_direction
from lightning_steer.studies.papers.__main__ import main
from lightning_steer.studies.papers.listed import PAPERS
from lightning_steer.studies.papers.paper import published
from lightning_steer.studies.papers.runner import Runner


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    """A tiny Llama 2 of four blocks with its chat template, loaded."""
    folder = tmp_path_factory.mktemp("chat") / "m"
    llm = LLM(tiny_papers.saved(folder, "llama", 4, tiny_papers.llama2_tokenizer(True)), [0, 1, 2, 3], chat=True)
    llm.load()
    return llm


def test_every_file_of_the_folder_is_an_experiment_and_names_its_models() -> None:
    assert {path.stem for path in (ROOT / "configs/papers").glob("*.yaml")} == set(PAPERS)
    for name, paper in PAPERS.items():
        head = (ROOT / f"configs/papers/{name}.yaml").read_text().split("experiment:")[0]
        for word in ("# What: ", "# Source: ", "# Cost: ", f"# Command:   {paper.command}\n", "# Expected: "):
            assert word in head, (name, word)
        assert set(paper.models) <= set(KNOWN)


@pytest.mark.parametrize("name", PAPERS)
def test_a_configuration_parses_for_a_model_of_its_paper(name: str, workshop: Path) -> None:
    experiment_read = experiment.read(PAPERS[name].files)
    assert experiment_read.llm.llm in PAPERS[name].models
    assert experiment_read.name.startswith(f"papers/{name}/")


@pytest.mark.parametrize("name", PAPERS)
def test_without_its_models_one_sentence_says_what_to_download_and_how_large_it_is(
    name: str, workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    for model in PAPERS[name].models:
        assert f"hf download {model}`, {KNOWN[model].download / 1e9:.1f} GB" in line


def test_several_models_have_their_sizes_in_all(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["likelihood_tuned", "--models", "google/gemma-2-2b", "nobody/knows"]) == 2
    message = capsys.readouterr().err
    assert "10.5 GB in all, 1 of unknown size not counted" in message
    assert "`hf download nobody/knows`, whose size is not known here" in message


def test_missing_data_name_the_clone_or_the_file(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_papers.saved(workshop / "m", "llama", 2, tiny_papers.llama2_tokenizer(True))
    assert main(["caa", "--models", model]) == 2
    assert "git clone https://github.com/nrimsky/CAA data/CAA" in capsys.readouterr().err
    assert main(["refusal_direction", "--models", model, "--data", "mine"]) == 2
    assert "mine/harmful.txt: refusal_direction reads your own prompts" in capsys.readouterr().err
    assert main(["caa", "--models", model, "--only", "courage"]) == 2
    assert "caa has no part 'courage': it has coordinate-other-ais" in capsys.readouterr().err


def test_the_page_is_what_is_generated_and_has_every_published_cell() -> None:
    text = (ROOT / "docs/papers.md").read_text()
    assert text == page.text(), "run python -m lightning_steer.studies.papers.page"
    for paper in PAPERS.values():
        assert f"\nCommand: `{paper.command}`\n" in text
    for row in published("caa")["behaviours"].values():
        assert f"| {row['slope']:+.3f} |  |  |" in text  # ours is empty
    for name in ("likelihood", "likelihood_tuned"):
        for sides in published(name)["cells"].values():
            assert all(f"{v:.4f}" in text for values in sides.values() for v in values if v is not None)
    assert "| sms_spam | +0.00 |  | +0.87 |  |" in text


def test_published_slopes_and_choices_are_those_of_the_page_that_judged_them() -> None:
    judged = (ROOT / "docs/published.md").read_text()
    for name, row in published("caa")["behaviours"].items():
        cells = f"| {name} | {row['lowest']:.3f} at -1 | {row['highest']:.3f} at 1 | {row['slope']:+.3f} | "
        assert f"{cells}{row['multipliers']} |" in judged
    for name, choice in published("refusal_direction")["chosen"].items():
        place = f"position {choice['position']}, layer {choice['layer']} (as published) | {choice['ablated']:.2f}"
        assert f"| {name} | {choice['allowed']} | {place} |" in judged
        assert f"| {choice['kl']:.3f} |" in judged


def test_every_published_number_has_its_source() -> None:
    stored = json.loads((ROOT / "lightning_steer/studies/papers/published.json").read_text())
    assert all(entry["source"].startswith("Theirs: ") for entry in stored.values())


# ---- costs


@pytest.mark.parametrize("name", ["fidelity_notebook", "likelihood", "system_prompts", "refusal_direction"])
def test_every_experiment_says_what_it_costs(name: str, workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(workshop / "data")
    tokenizer = tiny_papers.gemma_tokenizer() if "fidelity" in name else tiny_papers.llama2_tokenizer(True)
    model = tiny_papers.saved(workshop / "m", "gemma2" if "fidelity" in name else "llama", 18, tokenizer)
    assert main([name, "--models", model, "--plan"]) == 0
    output = capsys.readouterr().out
    assert re.search(r"In all [\d.,]+ \wFLOP", output)
    assert not list(Path("logs").rglob("result.json")), "a plan runs nothing"


def test_a_plan_needs_no_more_than_a_configuration(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of Gemma transformers makes a tokenizer up where none is: it knows no letter."""
    tiny_papers.saved(workshop / "whole", "gemma2", 2, tiny_papers.gemma_tokenizer())
    (workshop / "m").mkdir()
    (workshop / "m/config.json").write_bytes((workshop / "whole/config.json").read_bytes())
    (workshop / "pairs.jsonl").write_bytes((ROOT / "configs/pairs.jsonl").read_bytes())
    assert plan(["--llm", str(workshop / "m"), "--pairs", "pairs.jsonl"]) == 0
    assert "~: without a tokenizer on this machine a token is taken for 4 bytes of text" in capsys.readouterr().out


def test_costs_count_all_tasks_and_methods(workshop: Path) -> None:
    model = tiny_papers.saved(workshop / "m", "qwen2", 4, tiny_papers.qwen_tokenizer())
    plans = PAPERS["mera"].plans(model, Path("data"))
    assert sum(times for _, times, *_ in plans) == 5 * 2 * (1 + len(mera.METHODS) + 1)


def fill(folder: Path) -> None:
    """Write every experiment's data."""
    tiny_papers.caa(folder / "CAA")
    tiny_papers.steer_wrk(folder / "steer_wrk")
    tiny_papers.stereoset(folder / "stereoset/dev.json", 31)
    tiny_papers.prompts(folder)


# ---- what is kept


def test_a_finished_run_is_kept_until_its_settings_change(workshop: Path) -> None:
    runner, calls = Runner("caa"), []

    def compute() -> dict[str, float]:
        calls.append(1)
        return {"value": 0.5}

    assert runner.stored("one", ["a"], compute) == runner.stored("one", ["a"], compute) == {"value": 0.5}
    assert len(calls) == 1
    runner.stored("one", ["b"], compute)
    assert len(calls) == 2


def test_a_cell_that_cannot_run_is_named_and_ends_no_other(workshop: Path) -> None:
    def fail() -> dict[str, Any]:
        raise UserError("the model is too large")

    runner = Runner("caa")
    assert runner.stored("one", ["a"], fail) is None
    assert runner.failed == {"one": "the model is too large"}
    assert runner.stored("two", ["a"], lambda: {"value": 1.0}) == {"value": 1.0}


# ---- what is measured


def test_caa_has_the_slope_of_the_means_and_covers_their_ends() -> None:
    torch.manual_seed(0)
    margins = torch.randn(50, 5) + torch.linspace(-1, 1, 5)
    columns = {
        "strength/margin": margins[:, [0, 1, 3, 4]],
        "baseline/margin": margins[:, [2]],
        "cluster": torch.arange(50),
    }
    tested = SimpleNamespace(compute=lambda: columns)
    result = caa.read(SimpleNamespace(tested=tested, strengths=[-1.0, -0.5, 0.5, 1.0]))
    p = 1 / (1 + np.exp(-margins.numpy().astype(float)))
    means = [result["means"][f"{m:g}"]["value"] for m in caa.MULTIPLIERS]
    assert means == pytest.approx(p.mean(0), abs=1e-6)
    assert result["slope"]["value"] == pytest.approx(np.polyfit(caa.MULTIPLIERS, p.mean(0), 1)[0], abs=1e-6)
    assert result["slope"]["low"] < result["slope"]["value"] < result["slope"]["high"]


def test_a_tuned_model_is_judged_against_its_base_and_not_the_other_way_round() -> None:
    base = torch.tensor([[-1.0, -1.2], [-1.4, -1.0], [-1.1, -1.8], [-2.0, -1.5]] * 5, dtype=torch.float64)
    tuned = (
        base + torch.tensor([0.3, -0.2], dtype=torch.float64) * torch.linspace(0.5, 1, 20, dtype=torch.float64)[:, None]
    )
    there = likelihood.compared(base, tuned, torch.arange(20))
    back = likelihood.compared(tuned, base, torch.arange(20))
    assert there["margin_change"]["value"] == pytest.approx(0.375)
    assert back["margin_change"]["value"] == pytest.approx(-0.375)
    assert there["positive_change"]["value"] > 0 > there["negative_change"]["value"]


def test_the_refusal_score_is_the_log_odds_of_its_first_token(chat_model: LLM) -> None:
    token, prompts = refusal_direction.refusal_token(chat_model), ["How to bake?", "How, then, is it to be broken?"]
    logp = refusal_direction.next_token(chat_model, prompts)
    ids = chat_model.prompts(prompts, 1)
    for row, tokens in zip(logp, ids, strict=True):
        plain = chat_model.model(torch.tensor([tokens])).logits[0, -1].log_softmax(-1)
        assert torch.allclose(row, plain, atol=1e-4)
    p = logp[:, token].double().exp()
    assert refusal_direction.refusal(logp, token).tolist() == pytest.approx((p / (1 - p)).log().tolist(), abs=1e-3)
    assert chat_model.tokenizer.convert_ids_to_tokens(token) in ("▁", "I", "▁I")


def test_a_direction_is_the_mean_difference_at_one_token_of_the_template(chat_model: LLM) -> None:
    assert refusal_direction.after_instruction(chat_model) == len(" [/INST]")
    harmful, harmless = ["How to break?", "Break it"], ["How to bake a cake?"]
    directions = refusal_direction.directions(chat_model, harmful, harmless, -3)
    means = []
    for prompts in (harmful, harmless):
        states = [chat_model.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[2][0, -3]
                  for ids in chat_model.prompts(prompts, 1)]  # fmt: skip
        means.append(torch.stack(states).mean(0))
    assert torch.allclose(directions[1], means[0] - means[1], atol=1e-4)
    h = torch.randn(2, 5, 16)
    (edit, *_) = refusal_direction.ablated(chat_model, directions[1]).values()
    assert (edit(h) @ directions[1]).abs().max() < 1e-4
    (edit,) = refusal_direction.added(chat_model, 1, directions[1]).values()
    assert torch.allclose(edit(h), h + directions[1])


def test_the_rule_chooses_among_what_it_allows() -> None:
    def one(position: int, layer: int, ablated: float, added: float, kl: float) -> dict[str, Any]:
        values = {"ablated": ablated, "added": added, "kl": kl}
        return {"position": position, "layer": layer, **{name: {"value": v} for name, v in values.items()}}

    candidates = [one(-1, 4, -5, 1, 0.05), one(-1, 9, -9, 1, 0.05), one(-2, 4, -8, 1, 0.2), one(-2, 5, -7, -1, 0.05)]
    chosen, allowed = refusal_direction.choose({"candidates": candidates, "layers": 10})
    assert ((chosen or {})["layer"], allowed) == (4, 1)  # the others: too late, too much KL, no refusal induced


# ---- what was added to the library for them


def test_one_token_is_read_and_steered(chat_model: LLM) -> None:
    index = torch.tensor([[0, 1, 2, 3, -1], [0, 1, 2, 3, 4]])
    prompt = torch.tensor([3, 5])
    for offset in (-2, 1):
        mask = TokenAt(offset).mask(index, prompt)
        first = TokensFrom(offset).mask(index, prompt)
        assert mask is not None
        assert first is not None
        assert mask.sum(1).tolist() == [1, 1]
        assert first.int().argmax(1).tolist() == mask.int().argmax(1).tolist()
    chat_model.read_positions = TokenAt(-2)
    questions = [MultipleChoice("tea or ale?", (f" ({letter})",)) for letter in "AB"]
    h = chat_model.activations(questions)
    text = chat_model.prompt("tea or ale?") + " (A)"
    ids = chat_model.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert chat_model.tokenizer.convert_ids_to_tokens(ids[-2]) == "A"
    states = chat_model.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    assert torch.allclose(h[chat_model.sites[0]][0], states[1][0, -2], atol=1e-4)


def test_marks_stay_around_the_prompt_where_there_is_no_template(workshop: Path) -> None:
    tiny_papers.steer_wrk(workshop)
    path = "results/generated_data/myopia.json"
    plain, marked = (HalvesFile(path, "myopia", False, keep_marks=keep).read() for keep in (False, True))
    assert marked[0].prompt == f"[INST] {plain[0].prompt} [/INST]"
    assert plain[0].positive == "I take it now."


def test_text_before_the_prompts_changes_no_split(workshop: Path) -> None:
    tiny_papers.tasks(workshop, 60)
    source = SmsSpam("sms_spam/SMSSpamCollection")
    plain, told = (MERADataModule(source, 20, 10, 10, before=before) for before in ("", "Think. "))
    for data in (plain, told):
        data.setup()
    for example, other in ((plain.train, told.train), (plain.calibration, told.calibration), (plain.test, told.test)):
        assert [f"Think. {e.prompt}" for e in example] == [e.prompt for e in other]


def test_a_label_after_half_a_character_is_none() -> None:
    """A prompt that ends in such bytes could not be read again, and one row would end the run."""
    questions = [MultipleChoice("Which?", (" A", " B"))] * 2
    answered = generated_answers._cut(questions, [" so A", " \ufffd A"])
    assert answered.option.tolist() == [0, -1]
    assert [question.prompt for question in answered.questions] == ["Which? so", "Which?"]


def test_tables_are_of_plain_cells() -> None:
    for paper in PAPERS.values():
        rows = [line for line in paper.table({}, paper.models) if line.startswith("|")]
        widths: dict[int, list[str]] = {}
        for line in rows:
            widths.setdefault(len(re.findall(r"(?<!\\)\|", line)), []).append(line)
        assert rows
        assert all(len(group) >= 3 for group in widths.values())
