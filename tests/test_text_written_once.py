"""The model's own unsteered text is generated once, however many methods are tried, and is counted so in a plan."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from conftest import ROOT

from lightning_steer.data.behaviours.pairs import read_pairs
from lightning_steer.lm.language_model import LLM
from lightning_steer.methods import MeanDifference, PCADirection
from lightning_steer.plan import __main__ as plan
from lightning_steer.plan import options
from lightning_steer.plan.blank import Blank
from lightning_steer.plan.rows import Counter as TokenCounter
from lightning_steer.workflows.steer import reference_texts_for, searched

BASE, PAIRS = str(ROOT / "checkpoints/pocket/base"), str(ROOT / "configs/pairs.jsonl")


@pytest.mark.parametrize("methods", [[MeanDifference], [MeanDifference, PCADirection]])
def test_unsteered_text_is_generated_once(methods: list[type], monkeypatch: pytest.MonkeyPatch) -> None:
    unsteered: Counter[str] = Counter()
    generate = LLM.continued

    def counting(llm: LLM, prompts: Sequence[str], edits: Any, *more: Any, **settings: Any) -> list[list[int]]:
        if not edits:
            unsteered.update(prompts)
        return generate(llm, prompts, edits, *more, **settings)

    monkeypatch.setattr(LLM, "continued", counting)
    llm = LLM(BASE)
    llm.load()
    texts = reference_texts_for(llm, None)[:16]
    result = searched(llm, read_pairs(PAIRS), [2, 3], methods, [0.5, 1.0], reference_texts=texts)
    assert len(result.others) == len(methods) - 1
    assert max(unsteered.values()) == 1
    of_texts = [prompt for prompt in unsteered if any(text.startswith(prompt) for text in texts)]
    assert len(of_texts) > 4

    names = [word for kind in methods for word in ("--method", kind.__name__)]
    argv = ["--llm", BASE, "--pairs", PAIRS, "--layers", "2", "3", "--strengths", "0.5", "1", *names]
    monkeypatch.setattr(plan, "_reference_texts", lambda *_: texts)
    planned = plan.of_steer(
        options.parser().parse_args(argv), TokenCounter(llm, llm.tokenizer), Blank(llm.model.config, torch.float32)
    )
    assert planned.work is not None
    phases = {phase.name: phase for phase in planned.work.phases}
    assert phases["unrelated text of the model's own"].written == 24 * len(of_texts)
    chosen_on, held_out = phases["text at the pairs' prompts"], phases["test: text at held-out prompts"]
    counted = chosen_on.written / (1 + len(methods)) + held_out.written / 2  # the rest is steered
    assert counted == 24 * (len(unsteered) - len(of_texts))
