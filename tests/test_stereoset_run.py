"""All of StereoSet through a real model: batched, the context shared by its sentences, as single passes give it."""

import os
from pathlib import Path

import pytest
import torch
from test_stereoset_examples import DATA, needs_data

from lightning_steer.data.stereoset.examples import StereoSetExample, read_official
from lightning_steer.data.stereoset.module import question
from lightning_steer.lm.language_model import LLM
from lightning_steer.metrics.stereoset import association, pooled_association, shares

MODELS = os.environ.get("LIGHTNING_STEER_MODELS")
needs_model = pytest.mark.skipif(MODELS is None, reason="LIGHTNING_STEER_MODELS is unset: the real model is not there")


def stories() -> LLM:
    llm = LLM(str(Path(MODELS or "") / "stories260k"), normalize="tokens", tokens_per_batch=4096)
    llm.load()
    return llm


def alone(llm: LLM, example: StereoSetExample, sentence: str) -> float:
    """Mean log-probability of a sentence's tokens, by one forward pass without padding, packing or batch."""
    intra = example.task == "intrasentence"
    context, sentence_text = ("", sentence.strip()) if intra else (example.context.rstrip(), f" {sentence.strip()}")
    ids = llm.tokenizer(context + sentence_text)["input_ids"]
    start = 1 if intra else len(llm.tokenizer(context)["input_ids"])
    logp = llm.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    picked = [float(logp[i - 1, ids[i]]) for i in range(start, len(ids))]
    return sum(picked) / len(picked)


@needs_data
@needs_model
@torch.no_grad()
def test_scores_are_those_of_single_passes() -> None:
    llm, examples = stories(), read_official(DATA / "stereoset" / "dev.json")
    chosen = examples[::97]
    scores = llm.scores([question(example) for example in chosen])[0]
    expected = torch.tensor([[alone(llm, example, sentence) for sentence in example.sentences] for example in chosen])
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)


@needs_data
@needs_model
@pytest.mark.slow
@torch.no_grad()
def test_all_examples() -> None:
    llm, examples = stories(), read_official(DATA / "stereoset" / "dev.json")
    assert len(examples) == 4229
    scores = llm.scores([question(example) for example in examples])[0]
    assert scores.isfinite().all()
    terms = {term: number for number, term in enumerate(sorted({example.target for example in examples}))}
    term = torch.tensor([terms[example.target] for example in examples])
    for task in ("intersentence", "intrasentence"):
        rows = torch.tensor([example.task == task for example in examples])
        official, pooled = association(scores[rows], term[rows]), pooled_association(scores[rows])
        for scored in (official, pooled):
            print(
                task,
                int(rows.sum()),
                *(round(float(x), 3) for x in (scored.lms, scored.ss, scored.icat)),
            )
        print(shares(scores[rows]).tolist())
        for score in (*official, *pooled):  # it knows too little of the world for more to be said
            assert 30 < score < 70
