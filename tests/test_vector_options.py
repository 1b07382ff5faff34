"""``predict --vector FILE`` writes what the vector file says, and nothing about it is said twice."""

import json
import math
from functools import partial
from pathlib import Path

import pytest
from chats import BASE, TUNED, direction

from lightning_steer import vectors
from lightning_steer.__main__ import main
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import LastPromptToken
from lightning_steer.methods import Composed, Gated
from lightning_steer.probes import Condition
from lightning_steer.vector_options import spelled_out

PROMPTS = ["The hill bakers are", "In the morning, the grey"]


@pytest.mark.parametrize("positions", [None, LastPromptToken()], ids=["all", "last"])
def test_responses_are_those_of_the_vector(positions: LastPromptToken | None, workshop: Path) -> None:
    llm = LLM(BASE, 2, positions=positions)
    llm.load()
    vector = direction(llm)
    vector.save("glad.safetensors")
    Path("prompts.txt").write_text("\n\n".join(PROMPTS))
    options = ["--data.init_args.file=prompts.txt", "--model.init_args.max_new_tokens=8"]
    assert main(["predict", "--vector", "glad.safetensors", *options, "--trainer.enable_progress_bar=false"]) == 0
    lines = [json.loads(line) for line in Path("logs/responses/glad/responses.jsonl").read_text().splitlines()]
    responses = {(line["prompt"], line["strength"]): line["response"] for line in lines}
    edits = {site: partial(method, strength=2.0) for site, method in zip(llm.sites, vector.maps, strict=True)}
    for prompt in PROMPTS:
        assert responses[prompt, None] == llm.generate(prompt, 8)
        assert responses[prompt, 2.0] == llm.generate(prompt, 8, edits=edits)
    assert any(responses[prompt, None] != responses[prompt, 2.0] for prompt in PROMPTS)


def test_options_of_the_user_count_more(workshop: Path) -> None:
    llm = LLM(BASE, 2)
    llm.load()
    direction(llm).save("glad.safetensors")
    argv = ["predict", "--vector=glad.safetensors", "--model.init_args.strengths=[1.0]"]
    spelled = spelled_out(argv)
    assert spelled[0] == "predict"
    assert spelled[-2:] == argv[1:]
    assert spelled_out(["fit", "--vector", "x"]) == ["fit", "--vector", "x"]


@pytest.mark.parametrize("chat", [False, True])
def test_a_vector_of_the_chat_template_is_tried_in_it(chat: bool, workshop: Path) -> None:
    llm = LLM(TUNED if chat else BASE, 2, chat=chat)
    llm.load()
    direction(llm).save("glad.safetensors")
    assert vectors.load(Path("glad.safetensors")).card.chat is chat
    model = next(
        word for word in spelled_out(["predict", "--vector", "glad.safetensors"]) if word.startswith("--model=")
    )
    backbone = json.loads(model.partition("=")[2])["init_args"]["backbone"]["init_args"]
    assert backbone.get("chat", False) is chat


@pytest.mark.parametrize(
    ("name", "sentence"), [("nowhere.safetensors", "there is no vector file"), ("prompts.txt", "is not a readable")]
)
def test_bad_files(name: str, sentence: str, workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("prompts.txt").write_text("the cat")
    assert main(["predict", "--vector", name, "--data.init_args.file=prompts.txt"]) == 2
    assert sentence in capsys.readouterr().err


def test_methods_inside_a_method_are_named_as_options_name_them(workshop: Path) -> None:
    llm = LLM(BASE, 2)
    llm.load()
    mean = direction(llm).maps[0]
    condition = Condition(mean.width)  # type: ignore[arg-type]
    condition.set_threshold(-math.inf)
    gated = Gated.around(mean, condition)  # type: ignore[arg-type]
    both = Composed.of([gated, mean], strengths=[1.0, 2.0])  # type: ignore[list-item]
    vectors.of(llm, {llm.sites[0]: both}, 1.0).save("both.safetensors")
    Path("prompts.txt").write_text("\n\n".join(PROMPTS))
    options = ["--data.init_args.file=prompts.txt", "--model.init_args.max_new_tokens=2"]
    assert main(["predict", "--vector", "both.safetensors", *options]) == 0
