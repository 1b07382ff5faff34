"""What costs memory only at full size: the vocabulary head, and the weights' files, are taken a piece at a time."""

from pathlib import Path
from typing import Any

import pytest
import torch
from decoders import decoder, letters
from torch import Tensor

from lightning_steer.cache import fingerprints
from lightning_steer.lm import head
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import MultipleChoice

TEXTS = ["abcab", "bca", "cabcabca"]


@pytest.fixture
def llm() -> LLM:
    return LLM("tiny", [1]).adopt(decoder("gemma2").eval().requires_grad_(False), letters())


def seen_by_the_head(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The inputs of the vocabulary head from now on."""
    inputs: list[Tensor] = []
    module = llm.model.get_output_embeddings()
    original = module.forward

    def forward(h: Tensor) -> Tensor:
        inputs.append(h)
        return original(h)

    monkeypatch.setattr(module, "forward", forward)
    return inputs


@pytest.mark.parametrize("prompts", [TEXTS, TEXTS[:1]])
def test_the_head_is_given_the_last_tokens_of_prompts_in_one_piece(
    prompts: list[str], llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    # of a view torch multiplies each row by itself, and copies a head in bfloat16 once for each of them
    inputs = seen_by_the_head(llm, monkeypatch)
    llm.generate(prompts, max_new_tokens=3)
    assert len(inputs) >= 2
    # a single row counts as contiguous whatever its strides are
    assert all(h.stride() == torch.empty(h.shape).stride() for h in inputs)
    assert not llm.model.get_output_embeddings()._forward_pre_hooks  # none stays behind


def test_predictions_are_compared_and_scored_after_a_few_states_at_a_time(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    edits = {llm.sites[0]: lambda h: h + torch.tensor([0.0, 0.1])[:, None, None, None]}
    questions = [MultipleChoice("abc", ("ab", "ca")), MultipleChoice("ca", ("bcab", "c"))]

    def measured() -> list[Tensor]:
        return [*llm.drift(TEXTS, edits, 2)[:3], llm.scores(questions, edits, 2)]

    whole = measured()
    monkeypatch.setattr(head, "NUMBERS", 3 * len(llm.decoder.embedding))
    inputs = seen_by_the_head(llm, monkeypatch)
    for a, b in zip(measured(), whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, equal_nan=True)
    assert max(h.shape[:-1].numel() for h in inputs) == 3


def test_a_weights_file_is_opened_anew_for_each_tensor(
    llm: LLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what was read of a file counts as memory until it is closed: the size of the whole model, once more
    llm.model.save_pretrained(tmp_path)
    read: list[int] = []

    class Counted:
        def __init__(self, *arguments: Any) -> None:
            self.opened = original(*arguments)

        def __enter__(self) -> "Counted":
            self.file = self.opened.__enter__()
            read.append(0)
            return self

        def __exit__(self, *error: Any) -> None:
            self.opened.__exit__(*error)

        def keys(self) -> Any:
            return self.file.keys()

        def get_tensor(self, name: str) -> Tensor:
            read[-1] += 1
            return self.file.get_tensor(name)

    original = fingerprints.safe_open
    monkeypatch.setattr(fingerprints, "safe_open", Counted)
    assert fingerprints.of_files(str(tmp_path), None, llm.model) is not None
    assert sum(read) > 1
    assert max(read) == 1
