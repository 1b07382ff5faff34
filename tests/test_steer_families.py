"""``steer``, ``lint`` and ``chat`` as commands on a tiny random model of every family, and on the pocket models."""

import io
import json
import sys
from pathlib import Path

import pytest
from chats import BASE, TUNED
from decoders import FAMILIES, decoder, letters

import lightning_steer as ls
from lightning_steer.__main__ import main

WORDS = ["the cat", "a dog", "my hat", "one bee", "his pen", "her ox", "our cow", "an owl", "no fly", "old man"]
OUT = Path("logs/steer/pairs")


def three_commands(model: str, prompts: list[str], texts: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Lint pairs, steer with them, and talk with the vector; returns what the chat wrote."""
    pairs = [{"prompt": prompt, "positive": "kind", "negative": "rude"} for prompt in prompts]
    Path("pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    Path("texts.txt").write_text("\n\n".join(texts))
    assert main(["lint", "pairs.jsonl", "--llm", model]) in (0, 1)  # 1: it raises something
    steer = ["steer", "--llm", model, "--pairs", "pairs.jsonl", "--layers", "1", "2"]
    steer += ["--strengths", "-0.1", "0.1", "-1", "1"]  # of both signs: in a random model either may help
    assert main([*steer, "--reference_texts", "texts.txt", "--budget", "9", "--max_new_tokens", "4"]) == 0
    vector = ls.load(OUT / "vector.safetensors")
    assert vector.card.sites[0].layer in (1, 2)
    assert vector.card.effect["margin_change"]["n"] == 3
    assert not (OUT / "unfinished").exists()
    report = json.loads((OUT / "report.json").read_text())
    assert report["experiment"] == "steer"
    assert report["metrics"]["reference_kl"]["value"] >= 0
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{prompts[0]}\n/quit\n"))
    written = io.StringIO()
    monkeypatch.setattr(sys, "stdout", written)
    assert main(["chat", "--llm", model, "--vector", str(OUT / "vector.safetensors"), "--max_new_tokens", "4"]) == 0
    return written.getvalue()


@pytest.mark.parametrize(
    "family", [name if name in ("llama", "gpt2") else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
)
def test_a_random_model_of_every_family(family: str, workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder(family).save_pretrained("model")
    letters().save_pretrained("model")
    output = three_commands("model", WORDS, [f"{word} is at the old house." for word in WORDS[:6]], monkeypatch)
    assert output.strip()


@pytest.mark.parametrize("model", [BASE, pytest.param(TUNED, marks=pytest.mark.slow)], ids=["base", "tuned"])
def test_the_pocket_models(model: str, workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [f"The {group} {trade} are" for group in ("hill", "mill") for trade in ("bakers", "potters", "weavers")]
    prompts += [f"The {group} coopers are" for group in ("town", "harbour", "island", "forest")]
    texts = ["In the autumn, the grey cat watched under the tree.", "In the summer, the brown horse played."]
    assert three_commands(model, prompts, texts, monkeypatch).strip()
