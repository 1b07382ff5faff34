"""The public names: what DESIGN promises to whoever writes Python instead of configurations."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import ROOT

import lightning_steer as ls
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.methods import LearnedVector, MeanDifference

GROUPS = ("hill", "mill", "town", "harbour", "island", "forest", "valley")
TRADES = ("bakers", "potters", "weavers")
PAIRS = [ls.ContrastPair(f"The {group} {trade} are", "kind", "rude") for group in GROUPS for trade in TRADES][:20]
NEUTRAL = [
    "In the autumn, the grey cat watched under the tree.",
    "In the morning, the hungry horse rested beside the pond.",
    "In the summer, the brown horse played along the fence.",
]
BASE = str(ROOT / "checkpoints/pocket/base")


@pytest.fixture(scope="module")
def llm() -> ls.LLM:
    return ls.LLM(BASE, layers=2)


@pytest.fixture(scope="module")
def vector(llm: ls.LLM) -> ls.SteeringVector:
    return ls.fit(llm, PAIRS, reference_texts=NEUTRAL)


def test_the_import_loads_nothing() -> None:
    code = "import sys, lightning_steer; print(any(name in sys.modules for name in ('torch', 'lightning', 'numpy')))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_every_public_name_is_there_and_no_other() -> None:
    assert all(getattr(ls, name).__doc__ for name in ls.__all__)
    assert set(ls.__all__) <= set(dir(ls))
    with pytest.raises(AttributeError, match=r"steeer.*public names: LLM"):
        ls.steeer  # noqa: B018


def test_the_vector_is_that_of_the_command_line(
    vector: ls.SteeringVector, workshop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same pairs, layer, method, strength and split give the same numbers, to the last bit."""
    import json

    from lightning_steer.__main__ import main

    (workshop / "pairs.jsonl").write_text("".join(json.dumps(pair._asdict()) + "\n" for pair in PAIRS))
    (workshop / "neutral.txt").write_text("\n\n".join(NEUTRAL))
    source = {"class_path": "PairsFile", "init_args": {"path": "pairs.jsonl"}}
    options = [
        *("--config", str(ROOT / "configs/steer_behaviour.yaml")),
        *("--config", str(ROOT / "configs/methods/mean_difference.yaml")),
        *("--model.init_args.backbone.init_args.llm", BASE, "--model.init_args.strengths", "[1.0]"),
        *("--data.init_args.source", json.dumps(source), "--data.init_args.reference_texts", "neutral.txt"),
    ]
    for command in ("fit", "test"):
        assert main([command, *options]) in (0, None)
    saved = torch.load("checkpoints/steer_behaviour/mean_difference/best.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(saved["maps.0.vector"], vector.maps[0].vector)
    report = json.loads(Path("logs/steer_behaviour/mean_difference/report.json").read_text())
    assert {name: report["metrics"][name] for name in vector.card.effect} == vector.card.effect
    assert report["metrics"]["reference_kl"] == vector.card.drift["reference_kl"]
    assert vector.card.drift.keys() == {
        *("reference_kl", "reference_kl_p95", "reference_probability_lost", "perplexity_ratio"),
        *("text_nats", "text_repetition"),
    }


def test_it_is_silent(llm: ls.LLM, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder) -> None:
    ls.fit(llm, PAIRS)
    assert capfd.readouterr() == ("", "")
    assert not [str(warning.message) for warning in recwarn]


def test_steered_text_differs_and_comes_back(llm: ls.LLM, vector: ls.SteeringVector, tmp_path: Path) -> None:
    prompt = "The hill bakers are"
    before = llm.generate(prompt, max_new_tokens=3)
    assert isinstance(before, str)
    assert llm.generate([prompt], max_new_tokens=3) == [before]
    loaded = ls.load(vector.save(tmp_path / "kind.safetensors"))
    with loaded.applied_to(llm, strength=4.0):
        after = llm.generate(prompt, max_new_tokens=3)
    assert after != before == llm.generate(prompt, max_new_tokens=3)
    with loaded.applied_to(llm, strength=0.0):
        assert llm.generate(prompt, max_new_tokens=3) == before


def test_what_reads_choices_inside_the_block_is_steered(llm: ls.LLM, vector: ls.SteeringVector) -> None:
    questions = [MultipleChoice(pair.prompt, (f" {pair.positive}", f" {pair.negative}")) for pair in PAIRS[:3]]
    edits = {llm.sites[0]: vector.maps[0]}
    expected = llm.scores(questions, edits)
    with vector.applied_to(llm, strength=1.0):
        assert torch.equal(llm.scores(questions), expected)
    assert not torch.equal(llm.scores(questions), expected)


def test_printing_says_effect_damage_and_warnings(llm: ls.LLM, vector: ls.SteeringVector) -> None:
    text = str(vector)
    assert "MeanDifference at block 2" in text
    assert "strength 1 " in text
    assert "n 10" in text
    effect, damage = vector.card.effect["margin_change"], vector.card.drift["reference_kl"]
    assert f"{effect['value']:.3f} [{effect['low']:.3f}, {effect['high']:.3f}]" in text
    assert f"{damage['value']:.3f}" in text
    assert "side effects on other text: not measured" in str(ls.fit(llm, PAIRS))


def test_other_layers_leave_the_model_as_it_was(llm: ls.LLM) -> None:
    vector = ls.fit(llm, PAIRS, layers=[1, -1], method=partial(LearnedVector), epochs=2)
    assert [site.layer for site in vector.card.sites] == [1, 4]
    assert llm.layers == [2]
    assert all(method.vector.any() for method in vector.maps)


def test_pairs_are_read(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "He was", "positive": "glad", "negative": "angry"}\n')
    assert ls.read_pairs(path) == [("He was", "glad", "angry")]


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        ([("a", "b")], "pair 1 is .*not a prompt, a positive and a negative"),
        (["abc"], "pair 1 is abc, not a prompt"),
        ([("a", "b", 3)], "pair 1 is .*not a prompt"),
        ([("a", "b", " ")], "pair 1 has an empty continuation"),
        ([("a", "b", "b")], "example 1 has the same continuation twice"),
        ([("a", "b", "c"), ("a", "b", "c")], "example 2 repeats example 1"),
        ([("a", "b", "c"), ("a", "c", "b")], "example 2 is example 1 with its two sides exchanged"),
        ([("a", "b", "c")], "at least three prompts"),
        ([], "at least three prompts"),
        ("pairs.jsonl", "read a file with read_pairs"),
    ],
)
def test_bad_pairs(pairs: list[object], sentence: str) -> None:
    with pytest.raises((TypeError, ValueError), match=sentence):
        ls.fit(BASE, pairs, method=MeanDifference)  # type: ignore[arg-type]


def test_a_layer_that_is_not_there(llm: ls.LLM) -> None:
    with pytest.raises(ValueError, match="layer 9 does not exist"):
        ls.fit(llm, PAIRS, layers=9)


def test_nothing_is_fitted_to_a_steered_model(llm: ls.LLM, vector: ls.SteeringVector) -> None:
    with pytest.raises(ValueError, match="is being steered"), vector.applied_to(llm):
        ls.fit(llm, PAIRS)
