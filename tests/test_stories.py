"""A real pretrained model: its weights, tokenizer and cache behave, with hooks and without, and steering steers it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from torch import Tensor

from lightning_steer.__main__ import main
from lightning_steer.cache import ensure
from lightning_steer.check import LAWS
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.statistics.kinds import Mean

MODELS = "LIGHTNING_STEER_MODELS"
pytestmark = pytest.mark.skipif(MODELS not in os.environ, reason=f"{MODELS} names no folder of models")
STORY = ", there was a little girl named Lily. She loved to play outside in the park."
HAPPY = ("happy", "glad", "fun", "nice", "kind", "smiled", "laughed", "hugged")
SAD = ("sad", "mad", "scared", "mean", "hurt", "cried", "fell", "yelled")
WHO = ("Lily", "Tom", "the boy", "the girl", "the dog", "her mom", "his dad", "the cat")
HELD_OUT = (
    "Once upon a time, there was a little boy. He was very",
    "Tim and Sue went to the park. They felt",
    "The bird saw the big tree. It was",
    "One day, the little girl was",
    "They looked at the red ball. The man was so",
    "Mom came home. She was very",
)
NEUTRAL = (
    "The tree was in the park next to the house.",
    "He put the box on the table and opened the door.",
    "One day, the boy went to the store with a bag.",
    "There was a big red car on the road.",
)
LAYER = 3  # of 5: two thirds up


@pytest.fixture(scope="module")
def folder() -> str:
    return os.environ[MODELS] + "/stories260k"


@pytest.fixture(scope="module")
def llm(folder: str) -> LLM:
    llm_read = LLM(folder, LAYER)
    llm_read.load()
    return llm_read


def zero(h: Tensor) -> Tensor:
    return h + 0.0 * torch.ones(h.shape[-1])


@pytest.mark.parametrize("use_cache", [True, False], ids=["cache", "no cache"])
def test_greedy_text_is_the_published_one_with_hooks_and_without(use_cache: bool, llm: LLM) -> None:
    def told(**edits: Callable[[Tensor], Tensor]) -> str:
        sites = {f"{llm.blocks}.{i}": edits["every"] for i in range(5)} if edits else None
        return llm.generate(["Once upon a time"], sites, max_new_tokens=40, use_cache=use_cache)[0]

    assert told().startswith(STORY)
    assert told(every=zero) == told()
    assert not told(every=lambda h: h + 1.0).startswith(STORY)  # the hooks are there


def test_a_difference_of_two_word_sets_moves_the_words(llm: LLM, capsys: pytest.CaptureFixture[str]) -> None:
    site = llm.sites[0]

    def read(words: tuple[str, ...]) -> Tensor:
        return llm.activations([MultipleChoice(f"Then {who} was {word}") for who in WHO for word in words])[site].mean(
            0
        )

    vector = read(HAPPY) - read(SAD)
    strengths = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0])
    edits = {site: lambda h: h + strengths.view(-1, 1, 1, 1) * vector}
    questions = [MultipleChoice(prompt, tuple(f" {word}" for word in HAPPY + SAD)) for prompt in HELD_OUT]
    happy, sad = (part.logsumexp(-1) for part in llm.scores(questions, edits, 5).split([len(HAPPY), len(SAD)], -1))
    kl = llm.drift(NEUTRAL, edits, 5).kl.flatten(1).nanmean(1)
    estimates = [Mean(high=0).estimate(x.T.double().numpy()) for x in (happy, sad)]
    columns = [[f"{e.value:.2f} [{e.low:.2f}, {e.high:.2f}]" for e in column] for column in estimates]
    with capsys.disabled():
        print(f"\n{len(HELD_OUT)} held-out prompts, {len(NEUTRAL)} neutral texts, 95 % intervals over prompts")
        for strength, good, bad, moved in zip(strengths, *columns, kl, strict=True):
            print(f"strength {strength:+.1f}: log P(happy) {good}, log P(sad) {bad}, neutral KL {moved:.3f}")
    assert (happy.mean(1).diff() > 0).all()
    assert (sad.mean(1).diff() < 0).all()
    assert ((happy - sad).diff(dim=0) > 0).all()  # for each prompt by itself
    assert kl[2] < 1e-8  # zero strength, up to the rounding of rows that run side by side
    assert (kl[[0, 1, 3, 4]] > 0.01).all()
    assert kl[4] < 1  # nats; a uniform guess among 512 tokens would be far beyond


def test_all_laws_hold(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--llm", folder]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line[:4] for line in printed[:-1]] == ["ok  "] * len(LAWS)
    assert printed[-1] == f"{folder}: all laws hold"


def test_a_local_folder_and_a_hub_name_are_one_line(
    folder: str, workshop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (workshop / "texts.txt").write_text("\n\n".join(HELD_OUT))
    command = ["predict", "--config", "configs/cache.yaml", "--trainer.enable_progress_bar=false"]
    command += ["--trainer.accelerator", "cpu", "--data.init_args.file", "texts.txt"]
    named = "--model.init_args.backbone.init_args.llm"
    assert main([*command, named, folder]) == 0
    assert f"is complete: {len(HELD_OUT)} rows of layers [0, 1, 2, 3, 4]" in capsys.readouterr().out
    alone = LLM(folder, [0, 1, 2, 3, 4])
    before = {file.name: file.stat().st_mtime_ns for file in Path("checkpoints/cache/pocket").glob("*.safetensors")}
    cache = ensure(alone, HELD_OUT, "checkpoints/cache/pocket")
    assert before == {file.name: file.stat().st_mtime_ns for file in cache.folder.glob("*.safetensors")}
    alone.load()
    for layer, (site, h) in enumerate(alone.activations([MultipleChoice(text) for text in HELD_OUT]).items()):
        assert torch.equal(cache.layer(layer), h.bfloat16().float()), site
    assert main([*command, named, "someone/stories260k"]) == 2  # offline, and not in the hub's local cache
    assert "someone/stories260k is neither a local folder nor in the hub's" in capsys.readouterr().err
    snapshot = workshop / "hub/models--someone--stories260k/snapshots" / ("a" * 40)
    shutil.copytree(folder, snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs/main").write_text("a" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(workshop / "hub"))
    capsys.readouterr()
    assert main([*command, named, "someone/stories260k"]) == 0
    message = capsys.readouterr().out
    assert "0 of 1 shards are left to do" in message  # the same weights under another name
    assert "is complete: 6 rows" in message
