"""The search for layer and strength: every cell is what a separate run gives, and what judges has chosen nothing."""

import json
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import lightning_steer as ls
from lightning_steer.__main__ import main
from lightning_steer.data.behaviours.module import BehaviourDataModule
from lightning_steer.data.behaviours.pairs import Pairs
from lightning_steer.methods import MERA, Identity, MeanDifference
from lightning_steer.metrics import BehaviourEffect
from lightning_steer.modules import fit_data
from lightning_steer.selection.grid import Grid, reason, within_budget
from lightning_steer.studies.search.tables import pairs as pocket_pairs
from lightning_steer.workflows.fit import backbone
from lightning_steer.workflows.search import Search, damage, own_text
from lightning_steer.workflows.steer import reference_texts_for, searched

BASE = str(ROOT / "checkpoints/pocket/base")
GROUPS, TRADES = ("hill", "mill", "town", "harbour", "island", "forest"), ("bakers", "potters", "weavers", "coopers")
PAIRS = [ls.ContrastPair(f"The {group} {trade} are", "kind", "rude") for group in GROUPS for trade in TRADES][:20]
STRENGTHS = [0.25, 0.5, 2.0]
TEXTS = [
    "In the autumn, the grey cat watched under the tree.",
    "In the morning, the hungry horse rested beside the pond.",
    "In the summer, the brown horse played along the fence.",
    "In the evening, the small fox slept near the barn.",
]


@pytest.fixture(scope="module")
def llm() -> ls.LLM:
    return backbone(BASE, range(5))


def data(pairs: list[ls.ContrastPair] = PAIRS) -> BehaviourDataModule:
    return BehaviourDataModule(Pairs(pairs), fit_share=0.4, select_share=0.3)


@pytest.fixture(scope="module")
def grid(llm: ls.LLM) -> Grid:
    return Search(llm, data(), MeanDifference, TEXTS).grid(STRENGTHS)


def test_every_cell_is_that_of_a_separate_run(llm: ls.LLM, grid: Grid) -> None:
    """One layer, one strength, one pair at a time, and the means taken by hand."""
    module, evaluation = data(), BehaviourEffect()
    written = own_text(llm, TEXTS)
    assert written
    for i, layer in enumerate(grid.layers):
        alone = backbone(llm, layer)
        module.read_by(alone)
        read = [fit_data.read(alone, evaluation, batch) for batch in module.train_dataloader()]
        seen = {name: torch.cat([columns[name] for columns in read]) for name in read[0]}
        (site,) = alone.sites
        fitted = MeanDifference(alone.width(site))
        fitted.fit(fit_data.activations(seen, site, len(seen["error"]), True))
        for j, strength in enumerate(STRENGTHS):
            edits = {site: partial(fitted, strength=strength)}
            changes = []
            for batch in module.val_dataloader():
                for question in batch.x:
                    before, after = alone.scores([question])[0, 0], alone.scores([question], edits)[0, 0]
                    changes.append(float((after - before).diff()) * -1)
            torch.testing.assert_close(grid.effect[i, j].item(), sum(changes) / len(changes), rtol=0, atol=1e-5)
            worst = max(
                float(sum(kl[~kl.isnan()].sum() for kl in each) / sum((~kl.isnan()).sum() for kl in each))
                for each in ([alone.drift([text], edits).kl for text in group] for group in (TEXTS, written))
            )
            torch.testing.assert_close(grid.damage[i, j].item(), worst, rtol=0, atol=1e-5)


def test_blocks_run_as_often_as_counted(llm: ls.LLM) -> None:
    """Below a site once for all strengths, above it once for each: nothing is computed twice for the grid's sake."""
    module = data()
    module.read_by(llm)
    (batch,) = list(module.val_dataloader())
    counted: Counter[int] = Counter()
    handles = [
        llm.model.get_submodule(site).register_forward_hook(
            lambda _block, _args, out, i=i: counted.update({i: len(out[0] if isinstance(out, tuple) else out)})
        )
        for i, site in enumerate(llm.sites)
    ]
    try:
        llm.scores(batch.x)
        rows = counted[0]
        counted.clear()
        for site in llm.sites:
            edit = {site: lambda h: h + torch.ones(len(STRENGTHS), 1, 1, 1)}
            llm.scores(batch.x, edit, len(STRENGTHS))
    finally:
        for handle in handles:
            handle.remove()
    depth = len(llm.sites)
    expected = {i: rows * (sum(site >= i for site in range(depth)) + len(STRENGTHS) * i) for i in range(depth)}
    assert counted == expected


def test_the_grid_is_widened_where_its_end_is_the_best() -> None:
    pairs = ls.read_pairs(ROOT / "configs/pairs.jsonl")
    result = searched(BASE, pairs, layers=[4], reference_texts=TEXTS)
    assert len(result.grid.strengths) > len(MeanDifference.default_strengths)
    assert result.grid.effect.shape == result.grid.damage.shape == (1, len(result.grid.strengths))
    asked_for = searched(
        BASE, pairs, layers=[4], reference_texts=TEXTS, strengths=list(MeanDifference.default_strengths)
    )
    assert list(asked_for.grid.strengths) == list(MeanDifference.default_strengths)
    assert torch.equal(asked_for.grid.effect, result.grid.effect[:, : len(MeanDifference.default_strengths)])
    assert "strongest setting that was tried" in asked_for.reason


@pytest.mark.parametrize("method", [MERA, MeanDifference])
def test_a_method_has_strengths_of_its_own(llm: ls.LLM, method: type) -> None:
    pairs = ls.read_pairs(ROOT / "configs/pairs.jsonl")
    result = searched(llm, pairs, layers=[4], method=method, reference_texts=TEXTS, budget=9.0)
    assert list(result.grid.strengths)[: len(method.default_strengths)] == list(method.default_strengths)
    assert method is MeanDifference or len(result.grid.strengths) == len(method.default_strengths)


def test_a_method_that_does_nothing_is_not_chosen(llm: ls.LLM) -> None:
    with pytest.raises(ValueError, match="no layer and strength moves the margin as meant"):
        searched(llm, PAIRS, method=Identity, reference_texts=TEXTS, strengths=STRENGTHS)


def test_strengths_are_tried_from_the_weakest(llm: ls.LLM) -> None:
    result = searched(llm, PAIRS, reference_texts=TEXTS, strengths=[2.0, 0.25, 0.5])
    assert list(result.grid.strengths) == [0.25, 0.5, 2.0]


def test_a_strength_that_cannot_be_read_is_not_chosen(llm: ls.LLM, grid: Grid) -> None:
    again = Search(llm, data(), MeanDifference, TEXTS).grid([*STRENGTHS, 1e30])
    torch.testing.assert_close(again.effect[:, :-1], grid.effect, rtol=0, atol=1e-5)
    torch.testing.assert_close(again.damage[:, :-1], grid.damage, rtol=0, atol=1e-5)
    assert again.effect[:, -1].isnan().all()
    assert again.damage[:, -1].isinf().all()
    assert all(setting.strength < len(STRENGTHS) for setting in within_budget(again, 9.0))


def test_logits_that_are_not_numbers_are_damage(llm: ls.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    edits = {llm.sites[0]: lambda h: h}
    before = llm.drift(TEXTS, edits).kl
    monkeypatch.setattr("lightning_steer.lm.text_drift.next_token_kl", lambda base, _: base[..., 0] * torch.nan)
    assert torch.equal(llm.drift(TEXTS, edits).kl.isnan(), before.isnan())
    assert float(damage(llm, [TEXTS], edits)) == float("inf")


def test_damage_is_that_of_the_texts_that_change_most(llm: ls.LLM) -> None:
    edits = {llm.sites[0]: lambda h: h * 2}
    each = [float(damage(llm, [[text]], edits)) for text in TEXTS[:2]]
    assert float(damage(llm, [TEXTS[:1], TEXTS[1:2], []], edits)) == pytest.approx(max(each), abs=1e-6)
    assert each[0] != pytest.approx(each[1], abs=1e-4)


def test_texts_that_judge_have_chosen_nothing(llm: ls.LLM) -> None:
    texts = ["one two three four five", "a b c d e", "one two three four six"]
    assert len(own_text(llm, texts[2:])) == 1
    assert own_text(llm, texts[2:], without=texts[:2]) == []
    texts = reference_texts_for(llm, None)  # begin with few different words
    written = own_text(llm, texts[::2])
    judging = own_text(llm, texts[1::2], without=[*texts[::2], *written])
    assert len(judging) >= len(written) > 2
    assert not set(judging) & {*texts, *written}
    assert len(set(judging)) == len(judging)


def test_more_damage_than_the_budget_where_it_is_judged_is_said(
    llm: ls.LLM, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("lightning_steer.workflows.steer.damage", lambda *_: torch.tensor([torch.nan]))
    result = searched(llm, PAIRS, reference_texts=TEXTS, strengths=STRENGTHS, folder=tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert "more than the budget of 0.1" in report["warnings"][0]
    assert report["warnings"] == result.vector.card.warnings
    assert report["warnings"][0] in (tmp_path / "report.md").read_text()


def test_held_out_pairs_choose_nothing(llm: ls.LLM, grid: Grid) -> None:
    module = data()
    module.read_by(llm)
    held_out = {example.prompt for example in module.parts[2]}
    assert held_out
    other = [pair._replace(positive="dull", negative="quick") if pair.prompt in held_out else pair for pair in PAIRS]
    again = Search(llm, data(other), MeanDifference, TEXTS).grid(STRENGTHS)
    assert torch.equal(again.effect, grid.effect)
    assert torch.equal(again.damage, grid.damage)


def test_the_vector_is_that_of_the_chosen_setting(llm: ls.LLM) -> None:
    result = searched(llm, PAIRS, reference_texts=TEXTS, strengths=STRENGTHS)
    card = result.vector.card
    assert card.strength.value == STRENGTHS[result.setting.strength]
    assert card.strength.low is None  # the search was not done again on other rows
    assert not any("Only one strength" in warning for warning in card.warnings)
    assert [site.layer for site in card.sites] == [result.setting.layer]
    assert card.certificate is not None
    assert card.certificate["reason"] == result.reason
    assert f"{result.grid.damage[result.setting]:.3f}" in result.reason
    assert card.effect["margin_change"]["n"] == 6
    assert card.drift["reference_kl"]["n"] == 2 + len(own_text(llm, TEXTS[1::2]))


def table(effect: list[list[float]], damage: list[list[float]]) -> Grid:
    return Grid([3, 5], [1.0, 2.0], torch.tensor(effect), torch.tensor(damage), 9)


def test_the_largest_effect_within_the_budget() -> None:
    grid = table([[1.0, 9.0], [2.0, -3.0]], [[0.01, 0.2], [0.1, 0.0]])
    assert within_budget(grid, 0.1) == [(1, 0), (0, 0)]
    assert within_budget(grid, 0.3) == [(0, 1), (1, 0), (0, 0)]
    assert within_budget(grid, 0.001) == []
    assert within_budget(table([[9e-6, 0.0], [1e-7, -2.0]], [[0.0, 0.0], [0.0, 0.0]]), 0.1) == []
    assert within_budget(table([[-1.0, 0.0], [0.0, -2.0]], [[0.0, 0.0], [0.0, 0.0]]), 0.1) == []
    broken = table([[float("nan"), 1.0], [0.5, 2.0]], [[0.0, float("nan")], [0.0, float("inf")]])
    assert within_budget(broken, 0.1) == [(1, 0)]


def test_the_reason_names_the_edge_of_the_grid() -> None:
    grid = table([[1.0, 9.0], [2.0, -3.0]], [[0.01, 0.05], [0.1, 0.0]])
    first, second = within_budget(grid, 0.1)[:2]
    assert "strongest setting" in reason(grid, first, 0.1, 0)
    assert "Layer 3 (2 layers tried, counted from 0)" in reason(grid, first, 0.1, 0)
    assert "strongest setting" not in reason(grid, second, 0.1, 1)
    assert "1 with a larger effect broke" in reason(grid, second, 0.1, 1)


def test_what_breaks_text_is_passed_over(llm: ls.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    first = searched(llm, PAIRS, reference_texts=TEXTS, strengths=STRENGTHS)
    answers = iter([["repeats itself"], []])  # the largest effect, the next
    monkeypatch.setattr("lightning_steer.modules.written.broken", lambda *_: next(answers, []))
    result = searched(llm, PAIRS, reference_texts=TEXTS, strengths=STRENGTHS)
    assert result.grid.effect[result.setting] < first.grid.effect[first.setting]
    assert "1 with a larger effect broke the text" in result.reason


def test_shipped_texts_are_those_that_the_tokenizer_knows(llm: ls.LLM) -> None:
    texts = reference_texts_for(llm, None)
    assert len(texts) > 10
    assert all(llm.tokenizer.unk_token_id not in llm.tokenizer(text)["input_ids"] for text in texts)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"budget": 1e-12}, "no layer and strength .* at most 1e-12"),
        ({"budget": 0}, "budget must be above 0, not 0"),
        ({"budget": float("nan")}, "budget must be a finite number, not nan"),
        ({"seed": -1}, "seed must lie between 0"),
        ({"layers": []}, "at least one"),
        ({"layers": "2"}, "or \"auto\", not '2'"),
        ({"layers": 2}, 'or "auto", not 2'),
        ({"strengths": [1.0, 1.0]}, "1 occurs twice"),
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"reference_texts": ["one", "one"]}, "at least two different texts"),
        ({"reference_texts": "one text"}, "at least two different texts"),
        ({"layers": [9]}, "layer 9 does not exist"),
        ({"strengths": []}, "strengths"),
        ({"method": MERA, "strengths": [1.5]}, "strengths of MERA lie between 0 and 1, not at 1.5"),
        ({"strengths": 1.0}, "strengths is 1.0, not a list"),
        ({"method": "MeanDifference"}, "method is 'MeanDifference', not a class"),
        ({"pairs": PAIRS[:3]}, "at least 4 pairs, .* not 3: add pairs"),
        ({"pairs": "pairs.jsonl"}, "not the file pairs.jsonl: read it with read_pairs"),
        ({"strengths": [1.0, float("nan")]}, "strengths"),
    ],
)
def test_bad_values(llm: ls.LLM, changed: dict[str, object], sentence: str) -> None:
    arguments = {"pairs": PAIRS, "reference_texts": TEXTS, "strengths": STRENGTHS} | changed
    with pytest.raises((TypeError, ValueError), match=sentence):
        ls.steer(llm, **arguments)  # type: ignore[arg-type]


def test_the_command(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("pairs.jsonl").write_text("".join(json.dumps(pair._asdict()) + "\n" for pair in PAIRS))
    arguments = ["steer", "--llm", BASE, "--pairs", "pairs.jsonl", "--prompt", "The hill bakers are"]
    assert main([*arguments, "--strengths", "0.25", "0.5"]) == 0
    printed = capsys.readouterr().out
    assert "baseline: " in printed
    assert "steered: " in printed
    assert "drift on reference texts" in printed
    assert "random direction" in printed
    folder = Path("logs/steer/pairs")
    assert {path.name for path in folder.iterdir()} >= {"vector.safetensors", "report.md", "search.md", "search.png"}
    assert "| 4 |" in (folder / "search.md").read_text()
    (events,) = folder.glob("events.out.tfevents.*")
    log = EventAccumulator(str(events))
    log.Reload()
    assert {"search", "dose_response"} <= set(log.Tags()["images"])
    vector = ls.load(folder / "vector.safetensors")
    report = json.loads((folder / "report.json").read_text())
    assert report["budget"] == 0.1  # drawn into the damage curve
    random = report["baselines"]["random_control"]
    assert {figure["p"] for figure in random.values()} == {None}  # the search was for the vector alone
    assert "the setting was chosen for the vector and not for them" in printed
    assert "the setting was chosen for the vector and not for them" in (folder / "report.md").read_text()
    assert report["choice"] == vector.card.certificate["reason"]  # type: ignore[index]
    assert main(arguments) == 2
    assert "exists: name another folder" in capsys.readouterr().err
    (folder / "vector.safetensors").unlink()
    assert main(arguments) == 2
    assert "report.json exists" in capsys.readouterr().err
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert main([*arguments, "--overwrite", "true", "--budget", "1e-12"]) == 2  # nothing is within this budget
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_command_steers_some_tokens_with_a_trained_method(workshop: Path) -> None:
    pairs = ls.read_pairs(ROOT / "configs/pairs.jsonl")
    Path("pairs.jsonl").write_text("".join(json.dumps(pair._asdict()) + "\n" for pair in pairs))
    options = ["--method", "LearnedVector", "--epochs", "4", "--positions", "GeneratedTokens", "--layers", "4"]
    assert main(["steer", "--llm", BASE, "--pairs", "pairs.jsonl", *options, "--strengths", "8", "16"]) == 0
    card = ls.load("logs/steer/pairs/vector.safetensors").card
    assert card.method == "LearnedVector"
    assert card.positions == {"name": "GeneratedTokens"}
    report = Path("logs/steer/pairs/report.md").read_text()
    assert f"{BASE}, steered at layer 4, GeneratedTokens." in report.replace("\\", "")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--pairs", "none.jsonl"], "there is no file of behaviour examples none.jsonl"),
        (["--pairs", "empty.jsonl"], "empty.jsonl is empty"),
        (["--budget", "nan"], "--budget"),
        (["--budget", "-1"], "--budget must be above 0, not -1"),
        (["--budget", "much"], "--budget: invalid float value: 'much'"),
        (["--layers", "77"], "layer 77 does not exist"),
        (["--method", "LearntVector"], "invalid choice: 'LearntVector'"),
        (["--epochs", "0"], "--epochs must be at least 1, not 0"),
        (["--positions", "LastToken"], "invalid choice: 'LastToken'"),
        (["--strengths", "inf"], "strengths"),
        (["--reference_texts", "none.txt"], "none.txt"),
        (["--max_new_tokens", "0"], "--max_new_tokens must be at least 1, not 0"),
        (["--prompt", ""], "empty"),
        (["--out", "pairs.jsonl"], "is a file, where a folder is needed"),
        (["--overwrite", "maybe"], "invalid choice: 'maybe'"),
        (["--llm", "nowhere"], "nowhere"),
        (["--seed", "one"], "--seed: invalid int value: 'one'"),
        (["--budgett", "1"], "no option '--budgett' of steer; did you mean --budget?"),
    ],
)
def test_bad_commands(arguments: list[str], sentence: str, workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("pairs.jsonl").write_text("".join(json.dumps(pair._asdict()) + "\n" for pair in PAIRS))
    Path("empty.jsonl").write_text("")
    options = {"--llm": BASE, "--pairs": "pairs.jsonl"} | dict(zip(arguments[::2], arguments[1::2], strict=True))
    before = set(Path().rglob("*"))
    try:
        code = main(["steer", *(part for option in options.items() for part in option)])
    except SystemExit as exit_:
        code = exit_.code
    message = capsys.readouterr().err
    assert code == 2, message
    assert sentence in message
    assert len([line for line in message.strip().splitlines() if not line.startswith("Loading weights")]) == 1
    assert set(Path().rglob("*")) == before


def test_a_certificate_is_that_of_the_held_out_pairs_alone(llm: ls.LLM, tmp_path: Path) -> None:
    """One setting and rows that chose nothing: the bound is that of the rule on the report's own counts."""
    pairs = list({pair.prompt: pair for pair in pocket_pairs("truthful", 10, 0)}.values())
    result = searched(llm, pairs, layers=[4], reference_texts=TEXTS, strengths=[6.0], certify=True, folder=tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    bound, change = report["metrics"]["certified_bound"], report["metrics"]["intended_preferred_change"]
    assert bound["n"] == change["n"] == report["data"]["held_out"]["rows"]
    assert 0 < bound["value"] < change["value"]
    assert result.vector.card.certificate == {"reason": report["choice"], "bound": bound["value"]}
    assert f"improves by more than {bound['value']:.3f}" in report["choice"]
    weak = searched(llm, PAIRS, layers=[4], reference_texts=TEXTS, strengths=[0.25], certify=True)
    assert weak.vector.card.certificate is not None
    assert weak.vector.card.certificate["bound"] == 0.0
    assert "no improvement of intended_preferred is certified" in weak.vector.card.certificate["reason"]
