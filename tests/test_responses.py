"""Responses: batched as one by one, killed and resumed, drawn the same in any batch, refused in one sentence."""

import json
import os
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import quiet_trainer
from decoders import decoder, letters
from safetensors.torch import load_file, save_file

from lightning_steer.data.prompts import Prompt, PromptsDataModule, read_prompts
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import LastPromptToken, Positions
from lightning_steer.methods import LEACE, MeanDifference
from lightning_steer.modules import fitted
from lightning_steer.modules.responses import Responses
from lightning_steer.modules.sampling import Sampler
from lightning_steer.records import Activations
from lightning_steer.report.responses import side_by_side
from lightning_steer.runs import provenance

TEMPLATE = (
    "{% for m in messages %}{{ m.role[0] }}: {{ m.content }}. {% endfor %}{% if add_generation_prompt %}a: {% endif %}"
)
SYSTEMS = [None, "be kind", "be very brief"]
STRENGTHS = [-1.0, 0.5, 2.0]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    decoder("llama").save_pretrained(folder)
    tokenizer = letters()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def vector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vector") / "vector.pt"
    torch.save(2 * torch.randn(32, generator=torch.Generator().manual_seed(1)), path)
    return path


def prompts(folder: Path, n: int) -> Path:
    path = folder / "prompts.jsonl"
    words = ["hello there", "what is it", "a", "tell me of the long road home", "why"]
    path.write_text(
        "\n".join(json.dumps({"prompt": f"{words[i % 5]} {'xyz' * (i // 5)}", "id": f"p{i}"}) for i in range(n))
    )
    return path


def module(model: Path, vector: Path | None, **settings: Any) -> Responses:
    llm = LLM(str(model), layers=[1], chat=settings.pop("chat", True))
    defaults = {"strengths": STRENGTHS, "max_new_tokens": 8}
    return Responses(llm, None if vector is None else str(vector), **{**defaults, **settings})


def predict(responses: Responses, data: PromptsDataModule, folder: Path, **settings: Any) -> list[dict[str, Any]]:
    trainer = quiet_trainer(default_root_dir=folder, **settings)
    trainer.predict(responses, data, return_predictions=False)
    return [json.loads(line) for line in (folder / "responses.jsonl").read_text().splitlines()]


def named(lines: list[dict[str, Any]]) -> dict[tuple[Any, ...], str]:
    by_key = {(l["id"], l["system"], l["model"], l["strength"], l["sample"]): l["response"] for l in lines}  # noqa: E741
    assert len(by_key) == len(lines)
    return by_key


@pytest.mark.parametrize("n", [7, pytest.param(50, marks=pytest.mark.slow)])
def test_batched_responses_are_those_one_by_one(n: int, model: Path, vector: Path, tmp_path: Path) -> None:
    """Of 3 system prompts and 3 strengths, and unsteered."""
    data = PromptsDataModule(str(prompts(tmp_path, n)), SYSTEMS, batch_size=16)
    responses_by_key = named(predict(module(model, vector), data, tmp_path / "run"))
    assert len(responses_by_key) == n * 3 * 4
    llm, push = LLM(str(model), layers=[1], chat=True), torch.load(vector, weights_only=True)
    llm.load()
    for prompt in data.prompts:
        for system in SYSTEMS:
            llm.system = system
            for strength in (None, *STRENGTHS):
                edits = {} if strength is None else {llm.sites[0]: lambda h, c=strength: h + c * push}
                alone = llm.generate([prompt.text], 8, edits=edits)[0]
                assert responses_by_key[prompt.id, system, str(model), strength, 0] == alone
    assert len(set(responses_by_key.values())) > 2 * n  # steering and prompts both matter


def test_every_line_says_what_it_is_of(model: Path, vector: Path, tmp_path: Path) -> None:
    tuned = LLM(str(model), layers=[1], chat=True)
    data = PromptsDataModule(str(prompts(tmp_path, 5)), SYSTEMS, batch_size=2)
    responses = module(model, vector, tuned=tuned)
    lines = predict(responses, data, tmp_path / "run")
    assert len(lines) == 5 * 3 * (1 + 3 + 1)
    counts = Counter((line["system"], line["strength"]) for line in lines)
    assert counts == {(s, c): 10 if c is None else 5 for s in SYSTEMS for c in (None, *STRENGTHS)}
    page = (tmp_path / "run" / "responses.md").read_text()
    assert page.count("## Prompt p3") == 3
    assert "be very brief" in page
    assert page.count("| unsteered |") == 30


def child(model: Path, vector: Path, data: PromptsDataModule, folder: Path, parts: int) -> int:
    """Predict in a process that is killed while it makes its next part; returns how it ended."""
    pid = os.fork()
    if pid == 0:
        try:
            responses, made = module(model, vector), 0
            respond = responses.respond

            def killing(*given: Any) -> Any:
                nonlocal made
                if made == parts:
                    os.kill(os.getpid(), signal.SIGKILL)
                made += 1
                return respond(*given)

            responses.respond = killing  # type: ignore[method-assign]
            predict(responses, data, folder)
        finally:
            os._exit(0)
    return os.waitpid(pid, 0)[1]


@pytest.mark.parametrize("parts", [0, 1, 4])
def test_killed_and_resumed_without_a_lost_or_doubled_line(
    parts: int, model: Path, vector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = PromptsDataModule(str(prompts(tmp_path, 9)), SYSTEMS[:2], batch_size=3)
    whole = predict(module(model, vector), data, tmp_path / "whole")
    folder = tmp_path / "killed"
    assert child(model, vector, data, folder, parts) == signal.SIGKILL
    assert len(list((folder / "parts").glob("*.jsonl"))) == parts
    assert not (folder / "responses.jsonl").exists()
    responses, calls = module(model, vector), []
    respond = responses.respond
    responses.respond = lambda *arguments: calls.append(1) or respond(*arguments)  # type: ignore[method-assign]
    assert predict(responses, data, folder) == whole
    assert len(calls) == 6 - parts
    assert not parts or f"Going on: {6 - parts} of 6 parts are left." in capsys.readouterr().out
    assert (folder / "responses.jsonl").read_bytes() == (tmp_path / "whole" / "responses.jsonl").read_bytes()


def test_other_settings_start_anew(
    model: Path, vector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = PromptsDataModule(str(prompts(tmp_path, 4)), batch_size=2)
    first = predict(module(model, vector), data, tmp_path / "run")
    other = predict(module(model, vector, max_new_tokens=3), data, tmp_path / "run")
    assert "of other settings: starting anew" in capsys.readouterr().out
    assert all(len(b["response"]) <= len(a["response"]) for a, b in zip(first, other, strict=True))
    assert first != other


def test_two_processes_write_what_one_does(model: Path, vector: Path, tmp_path: Path) -> None:
    data = PromptsDataModule(str(prompts(tmp_path, 9)), SYSTEMS[:2], batch_size=4)
    single = predict(module(model, vector), data, tmp_path / "one")
    two = predict(module(model, vector), data, tmp_path / "two", devices=2, strategy="ddp_fork")
    assert single == two


def test_drawn_responses_do_not_depend_on_the_batch(model: Path, vector: Path, tmp_path: Path) -> None:
    settings = {"temperature": 1.0, "top_p": 0.9, "samples": 2}
    path = str(prompts(tmp_path, 6))
    runs = [
        named(
            predict(
                module(model, vector, **settings, seed=seed), PromptsDataModule(path, batch_size=size), tmp_path / name
            )
        )
        for name, size, seed in (("a", 6, 0), ("b", 1, 0), ("c", 6, 1))
    ]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    pairs = [(text, runs[0][(*key[:4], 1)]) for key, text in runs[0].items() if key[4] == 0]
    assert sum(a != b for a, b in pairs) > len(pairs) / 2


def test_tokens_are_drawn_with_their_probabilities() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0]).expand(20_000, 4)
    drawn = Sampler([str(i) for i in range(20_000)], 0, 0.7)(torch.zeros(1), logits).argmax(-1)
    expected = (logits[0] / 0.7).softmax(-1)
    torch.testing.assert_close(drawn.bincount(minlength=4) / 20_000, expected, atol=0.012, rtol=0)
    few = Sampler([str(i) for i in range(20_000)], 0, 0.7, 0.9)(torch.zeros(1), logits).argmax(-1)
    share = expected[:2] / expected[:2].sum()  # the first alone reaches .77, with the second .95
    torch.testing.assert_close(
        few.bincount(minlength=4) / 20_000, torch.cat([share, torch.zeros(2)]), atol=0.012, rtol=0
    )


def test_a_steering_runs_checkpoint_is_loaded(tmp_path: Path) -> None:
    g = torch.Generator().manual_seed(0)
    error = torch.cat([torch.ones(40), torch.zeros(40)])
    seen = Activations(torch.randn(80, 8, generator=g) + error[:, None], error, (error < 0.5).long()[:, None], True)
    for method in (MeanDifference, LEACE):
        maps = torch.nn.ModuleList([method(8).fit(seen)])
        path = tmp_path / "best.ckpt"
        torch.save({"state_dict": {f"maps.{key}": value for key, value in maps.state_dict().items()}}, path)
        loaded = fitted.load(path, method, {"layers.1": 8})["layers.1"]
        h = torch.randn(3, 8, generator=g)
        torch.testing.assert_close(loaded(h, 1.5), maps[0](h, 1.5), rtol=0, atol=0)  # type: ignore[operator]
        with pytest.raises(ValueError, match=r"holds no map number 2, for layers.2: it was fitted at other sites"):
            fitted.load(path, method, {"layers.1": 8, "layers.2": 8})


def test_plain_vectors_are_loaded_by_site_or_layer(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    v = torch.arange(8.0)
    save_file({"model.layers.1": v}, tmp_path / "v.safetensors")
    torch.save({1: v}, tmp_path / "v.pt")
    torch.save(v, tmp_path / "one.pt")
    for name in ("v.safetensors", "v.pt", "one.pt"):
        method = fitted.load(tmp_path / name, None, {"model.layers.1": 8})["model.layers.1"]
        torch.testing.assert_close(method(torch.zeros(1, 8), 2.0)[0], 2 * v)


def saved(folder: Path, value: Any) -> Path:
    path = folder / "some.pt"
    torch.save(value, path)
    return path


BAD: dict[str, tuple[Any, str]] = {
    "vector of another width": (torch.zeros(9), r"has shape \[9\], but model.layers.1 is 8 wide"),
    "matrix": (torch.zeros(8, 8), r"has shape \[8, 8\]"),
    "NaN": (torch.full((8,), torch.nan), "holds NaN or infinite values for model.layers.1"),
    "another layer": ({"model.layers.2": torch.zeros(8)}, "has no vector for model.layers.1; it has model.layers.2"),
    "no vectors": ({}, "has no vector for model.layers.1; it has none"),
    "no tensors": ({"a": "b"}, "is neither a vector nor vectors by site"),
    "a list": ([1, 2], "is neither a vector nor vectors by site"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_vectors_are_refused(name: str, tmp_path: Path) -> None:
    value, message = BAD[name]
    with pytest.raises(ValueError, match=message) as error:
        fitted.load(saved(tmp_path, value), None, {"model.layers.1": 8})
    assert "\n" not in str(error.value)


def test_files_that_are_no_maps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no fitted map at"):
        fitted.load(tmp_path / "none.ckpt", None, {"a": 8})
    for name in ("x.pt", "x.safetensors"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(ValueError, match=f"{name} cannot be read as tensors"):
            fitted.load(tmp_path / name, None, {"a": 8})
    with pytest.raises(ValueError, match="does not fit MeanDifference at a"):
        fitted.load(saved(tmp_path, {"state_dict": {"maps.0.other": torch.zeros(8)}}), MeanDifference, {"a": 8})


def test_bad_prompts_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    for content, message in (
        ("", "holds no prompt"),
        ('{"prompt": " "}', "prompt 1 is empty"),
        ('{"prompt": "a", "id": 1}\n{"prompt": "b", "id": "1"}', "the id 1 occurs twice"),
        ('{"text": "a"}', "line 1: expected a JSON object with prompt"),
        ('{"prompt": 3}', "line 1: prompt must be text"),
        ("{", "line 1: expected a JSON object"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            read_prompts(path)
    with pytest.raises(FileNotFoundError, match="no text file at"):
        read_prompts(tmp_path / "none.txt")
    plain = tmp_path / "prompts.txt"
    plain.write_text("One.\n\nTwo\nlines.\n")
    assert read_prompts(plain) == [Prompt("1", "One."), Prompt("2", "Two\nlines.")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1.0}, "temperature must be at least 0"),
        ({"top_p": 0.0}, r"top_p lies in \(0, 1\]"),
        ({"samples": 2}, "without a temperature all are the same"),
        ({"strengths": []}, "strengths is empty"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str, model: Path, vector: Path) -> None:
    with pytest.raises(ValueError, match=message):
        module(model, vector, **settings)


def test_bad_systems_and_modules_are_refused(model: Path, vector: Path, tmp_path: Path) -> None:
    path = str(prompts(tmp_path, 2))
    for systems in ([], ["a", "a"]):
        with pytest.raises(ValueError, match="systems are at least one and all different"):
            PromptsDataModule(path, systems)
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        PromptsDataModule(path, batch_size=0)
    with pytest.raises(ValueError, match="the system prompt 'be kind' is part of a chat"):
        predict(module(model, vector, chat=False), PromptsDataModule(path, ["be kind"]), tmp_path)


@pytest.mark.parametrize("change", ["weights", "dtype"])
def test_responses_of_another_network_are_not_reused(
    change: str, model: Path, vector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = shutil.copytree(model, tmp_path / "own")
    data = PromptsDataModule(str(prompts(tmp_path, 4)), batch_size=2)
    predict(module(own, vector), data, tmp_path / "run")
    again = module(own, vector)
    predict(again, data, tmp_path / "run")
    assert "starting anew" not in capsys.readouterr().out
    if change == "dtype":
        again = Responses(
            LLM(str(own), layers=[1], chat=True, dtype="bfloat16"), str(vector), strengths=STRENGTHS, max_new_tokens=8
        )
    else:
        weights = load_file(own / "model.safetensors")
        weights["model.embed_tokens.weight"][:, 0] += 1.0
        save_file(weights, own / "model.safetensors", {"format": "pt"})
        again = module(own, vector)
    predict(again, data, tmp_path / "run")
    assert "were of other settings: starting anew" in capsys.readouterr().out


def test_cells_cannot_break_the_table() -> None:
    line = {"id": "1", "prompt": "a\nb", "system": None, "model": "m", "strength": 1.0, "response": "x | y\nz"}
    assert "| m | 1 | x \\| y<br>z |" in side_by_side([line])


def test_a_vector_without_a_record_is_named_as_such(model: Path, vector: Path, tmp_path: Path) -> None:
    data = PromptsDataModule(str(prompts(tmp_path, 2)), batch_size=2)
    predict(module(model, vector), data, tmp_path / "run")
    sentence = f"{vector} does not say what it was fitted to: model, layer and tokens were not compared."
    assert sentence in (tmp_path / "run" / "responses.md").read_text()
    predict(module(model, None), data, tmp_path / "plain")
    assert "Warning" not in (tmp_path / "plain" / "responses.md").read_text()


def test_responses_steered_at_other_tokens_are_refused_or_named(model: Path, tmp_path: Path) -> None:
    llm = LLM(str(model), layers=[1], chat=True)
    llm.load()
    method = MeanDifference(32).fit(
        Activations(torch.randn(4, 32), torch.tensor([1.0, 1, 0, 0]), torch.zeros(4, 1), True)
    )
    record = provenance.Provenance(
        **provenance.of_network(llm), method="MeanDifference", settings={}, sites=llm.sites, positions="AllTokens()",
        read_positions="LastPromptToken()", prompts="", task="t", fitted_rows=["a"], selection_rows=["b"],
    )  # fmt: skip
    path = tmp_path / "best.ckpt"
    state = {f"maps.0.{key}": value for key, value in method.state_dict().items()}
    torch.save({"state_dict": state, "provenance": record.as_json()}, path)
    data = PromptsDataModule(str(prompts(tmp_path, 2)), batch_size=2)

    def steered(positions: Positions | None) -> Responses:
        backbone = LLM(str(model), layers=[1], chat=True, positions=positions)
        return Responses(backbone, str(path), MeanDifference, [1.0], max_new_tokens=3)

    predict(steered(None), data, tmp_path / "same")
    assert "Warning" not in (tmp_path / "same" / "responses.md").read_text()
    with pytest.raises(ValueError, match=r"positions AllTokens\(\), not LastPromptToken\(\)"):
        predict(steered(LastPromptToken()), data, tmp_path / "other")
    accepted = steered(LastPromptToken())
    accepted.accept_mismatch = True
    predict(accepted, data, tmp_path / "other")
    assert "positions AllTokens(), not LastPromptToken()" in (tmp_path / "other" / "responses.md").read_text()
