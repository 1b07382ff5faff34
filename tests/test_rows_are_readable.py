"""Rows that a model cannot read, or whose two sides it reads as the same tokens, are refused by name before a fit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from decoders import decoder
from test_continuations import normalises
from test_stereoset_examples import official, row

from lightning_steer.__main__ import main

QUIET = ["--trainer.enable_progress_bar=false", "--model.init_args.random_draws=2", "--model.init_args.resamples=50"]
PAIRS = [
    {"id": f"p{i}", "prompt": f"the cat is {i}", "positive": "no", "negative": "yes it is", "behaviour": "b"}
    for i in range(12)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, tokenizer = tmp_path_factory.mktemp("model"), normalises("lower")
    decoder("llama", vocab_size=len(tokenizer), max_position_embeddings=60).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit(experiment: str, model: Path, *more: str) -> int:
    return run("fit", experiment, model, *more)


def run(command: str, experiment: str, model: Path, *more: str) -> int:
    method = "mera" if experiment == "steer_mera" else "mean_difference"
    configs = ["--config", f"configs/{experiment}.yaml", "--config", f"configs/methods/{method}.yaml"]
    backbone = [f"--model.init_args.backbone.init_args.{name}" for name in (f"llm={model}", "layers=1")]
    return main([command, *configs, *backbone, *QUIET, *more])


def pairs(rows: list[dict[str, str]]) -> list[str]:
    Path("pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = "--data.init_args.source"
    return [f"{source}=PairsFile", f"{source}.init_args.path=pairs.jsonl", "--data.init_args.fit_share=0.5"]


def stereoset(change: Callable[[dict[str, Any]], None]) -> list[str]:
    rows = [row(i) for i in range(48)]
    change(rows[17])
    return [f"--data.init_args.source={official({'intersentence': rows, 'intrasentence': rows[:0]}, Path())}"]


@pytest.mark.parametrize("number", [0, 4, 11])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positive": "Yes it is"}, "as the same tokens after"),
        ({"prompt": "the cat " * 20}, "are more than the 60 that"),
    ],
    ids=["same tokens", "too long"],
)
def test_a_pair_is_refused_by_name_in_whatever_part_it_is(
    change: dict[str, str], message: str, number: int, model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{**pair, **change} if i == number else pair for i, pair in enumerate(PAIRS)]
    assert fit("steer_behaviour", model, *pairs(rows)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert f"row p{number}: " in error


@pytest.mark.parametrize(
    ("words", "message"),
    [("They are QUICK.", "as the same tokens"), ("They are quick. " * 5, "are more than the 60 that")],
)
def test_a_stereotype_is_refused_by_name(
    words: str, message: str, model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(example: dict[str, Any]) -> None:
        for sentence in example["sentences"]:
            if sentence["gold_label"] == "anti-stereotype":
                sentence["sentence"] = words

    more = [
        *stereoset(change),
        "--data.init_args.tasks=[intersentence]",
        "--data.init_args.per_type=null",
        "--data.init_args.bias_types=null",
    ]
    assert fit("steer_stereoset_notebook", model, *more) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "row intersentence-17: " in error


def labelled(texts: list[str]) -> list[str]:
    rows = [{"text": text, "kind": "ab"[i % 2]} for i, text in enumerate(texts)]
    Path("own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = "--data.init_args.source"
    settings = {"file": "own.jsonl", "template": "'{text} :'", "label_column": "kind"}
    return [
        f"{source}=LabelledFile",
        *(f"{source}.init_args.{name}={value}" for name, value in settings.items()),
        f"{source}.init_args.labels={{a: [ham], b: [spam]}}",
        *(f"--data.init_args.{part}={count}" for part, count in (("train", 40), ("calibration", 20), ("test", 20))),
        "--data.init_args.cache=null",
    ]


def test_a_labelled_prompt_that_is_too_long_is_refused_before_anything_is_learned(
    model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (3, 40, 79):
        texts = [f"the cat {i}" + " is here" * (8 if i == number else 0) for i in range(80)]
        assert fit("steer_mera", model, *labelled(texts)) == 2
        error = capsys.readouterr().err
        assert "are more than the 60 that" in error
        assert f"the cat {number} is" in error
        assert not list(Path().rglob("*.ckpt"))


def test_equal_prompts_are_called_equal(model: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("steer_mera", model, *labelled(["the cat"] * 80)) == 2
    assert "all prompts of own are equal" in capsys.readouterr().err


def test_the_shipped_cache_configuration_records_the_shipped_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where there is no README and no folder of configurations: what it names ships with it."""
    if not (ROOT / "checkpoints/pocket/base/model.safetensors").is_file():
        pytest.skip("no models")
    monkeypatch.chdir(tmp_path)
    assert main(["predict", "--config", "configs/cache.yaml", QUIET[0]]) == 0
    assert "is complete: 64 rows of layers [0, 1, 2, 3, 4]" in capsys.readouterr().out
