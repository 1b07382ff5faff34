"""A vector searched for beside others: what it adds to them counts, the budget is for all, and the report compares."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from torch import Tensor

import lightning_steer as ls
from lightning_steer import vectors
from lightning_steer.__main__ import main
from lightning_steer.data.behaviours.module import BehaviourDataModule
from lightning_steer.data.behaviours.pairs import Pairs
from lightning_steer.data.pocket.prompts import behaviour_items
from lightning_steer.lm.positions import LastPromptToken
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.methods import LearnedVector, MeanDifference
from lightning_steer.selection.grid import Setting
from lightning_steer.workflows.beside import Beside
from lightning_steer.workflows.fit import backbone
from lightning_steer.workflows.fluency import Fluency
from lightning_steer.workflows.search import Search, own_text
from lightning_steer.workflows.steer import SHARES, searched

BASE = str(ROOT / "checkpoints/pocket/base")
ITEMS = list({item.prompt: item for item in behaviour_items("truthful")}.values())[:40]
PAIRS = [ls.ContrastPair(item.prompt, item.positive, item.negative) for item in ITEMS]
TEXTS = [
    "In the autumn, the grey cat watched under the tree.",
    "In the morning, the hungry horse rested beside the pond.",
    "In the summer, the brown horse played along the fence.",
    "In the evening, the small fox slept near the barn.",
]
STRENGTHS = [0.5, 2.0]


@pytest.fixture(scope="module")
def llm() -> ls.LLM:
    return backbone(BASE, [1, 2, 3])


def other(llm: ls.LLM, layer: int, size: float = 8.0) -> ls.SteeringVector:
    """A random vector at a layer."""
    at_layer = backbone(llm, layer)
    method = MeanDifference(at_layer.width(at_layer.sites[0]))
    method.vector = size * torch.randn(method.width, generator=torch.Generator().manual_seed(layer))
    method.fitted = True
    return vectors.of(at_layer, {at_layer.sites[0]: method}, 0.5)


def data() -> BehaviourDataModule:
    return BehaviourDataModule(Pairs(PAIRS), None, False, *SHARES)


def adding(llm: ls.LLM, *amounts: tuple[int, float, Tensor]) -> dict[str, object]:
    """Hand-made edits: ``strength * vector`` is added at a layer."""
    by_layer = {
        layer: sum(s * v for layer_of_amount, s, v in amounts if layer_of_amount == layer) for layer, _, _ in amounts
    }
    return {llm.site(layer): lambda h, shift=shift: h + shift for layer, shift in by_layer.items()}


@torch.no_grad()
def logits(llm: ls.LLM, text: str, edits: dict) -> Tensor:
    ids = torch.tensor([llm.rows([MultipleChoice(text)])[0].ids])
    with llm.steered(edits):
        return llm.model(ids).logits[0].double().log_softmax(-1)


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_a_cell_is_what_the_method_adds_and_the_damage_of_both(llm: ls.LLM, layer: int) -> None:
    vector = other(llm, layer)
    shift = vector.maps[0].vector
    search = Search(llm, data(), MeanDifference, TEXTS, beside=Beside.of(llm, [vector]).edits)
    grid, alone = search.grid(STRENGTHS), Search(llm, data(), MeanDifference, TEXTS).grid(STRENGTHS)
    assert (grid.effect - alone.effect).abs().max() > 1e-3
    module = data()
    module.read_by(llm)
    questions = [question for batch in module.val_dataloader() for question in batch.x]
    margin = lambda edits: -llm.scores(questions, edits)[0].diff(dim=1).squeeze(1).double()  # noqa: E731
    before = margin(adding(llm, (layer, 0.5, shift)))
    for i, place in enumerate(llm.layers):
        new = search.methods[llm.sites[i]].vector
        for j, strength in enumerate(STRENGTHS):
            both = adding(llm, (layer, 0.5, shift), (place, strength, new))
            assert grid.effect[i, j].item() == pytest.approx(float((margin(both) - before).mean()), abs=1e-5)
            kl = []
            for text in TEXTS:
                plain, steered = logits(llm, text, {}), logits(llm, text, both)
                kl.append((plain.exp() * (plain - steered)).sum(1))
            read = float(torch.cat(kl).mean())
            assert grid.damage[i, j].item() == pytest.approx(read, rel=1e-3) or grid.damage[i, j] > read


def test_text_is_written_with_all_vectors(llm: ls.LLM) -> None:
    module = data()
    search = Search(llm, module, MeanDifference, TEXTS)
    beside = Beside.of(llm, [other(llm, 3, 400.0)]).edits
    grid = search.grid([1e-6])
    free, crowded = (Fluency(llm, module, search.methods, 10.0, edits) for edits in ({}, beside))
    assert free.whole(grid, Setting(1, 0))
    assert not crowded.whole(grid, Setting(1, 0))


def test_the_report_compares_the_new_vector_with_the_others(llm: ls.LLM, tmp_path: Path) -> None:
    group = [other(llm, 2), other(llm, 3)]
    result = searched(
        llm, PAIRS, [2], strengths=[1.0, 2.0], reference_texts=TEXTS, budget=1.0, beside=group, folder=tmp_path
    )
    report = json.loads((tmp_path / "report.json").read_text())
    beside = report["beside"]
    assert beside["alone"]["value"] == pytest.approx(report["metrics"]["margin_change"]["value"], abs=1e-5)
    apart = [pair for pair in PAIRS if pair.prompt in result.held_out]
    questions = [MultipleChoice(p.prompt, (f" {p.positive}", f" {p.negative}")) for p in apart]
    new = (2, result.vector.card.strength.value, result.vector.maps[0].vector)
    known = [(vector.card.sites[0].layer, 0.5, vector.maps[0].vector) for vector in group]
    margin = lambda edits: -llm.scores(questions, edits)[0].diff(dim=1).squeeze(1).double().mean()  # noqa: E731
    plain, with_new, rest, both = (margin(adding(llm, *e)) for e in ([], [new], known, [new, *known]))  # type: ignore[arg-type]
    for name, expected in (
        ("alone", with_new - plain),
        ("beside", rest - plain),
        ("together", both - plain),
        ("interaction", both - with_new - rest + plain),
    ):
        assert beside[name]["value"] == pytest.approx(float(expected), abs=1e-5), name
        assert beside[name]["n"] == len(apart)
    assert beside["interaction"]["low"] <= beside["interaction"]["value"] <= beside["interaction"]["high"]
    named = "MeanDifference at block 2, strength 0.5 and MeanDifference at block 3, strength 0.5"
    assert beside["vectors"] == named
    assert f"the effect is what it adds to {named}" in result.reason
    assert beside["sentence"] in result.vector.card.warnings
    assert beside["sentence"][:60] in (tmp_path / "report.md").read_text().replace("\\", "")
    judging = [TEXTS[1::2], own_text(llm, TEXTS[1::2], without=[*TEXTS[::2], *own_text(llm, TEXTS[::2])])]
    edits = adding(llm, new, *known)  # type: ignore[arg-type]
    worst = max(float(kl[~kl.isnan()].mean()) for kl in (llm.drift(texts, edits).kl for texts in judging))  # type: ignore[arg-type]
    assert beside["reference_kl"] == pytest.approx(worst, rel=1e-3)


def test_without_others_nothing_is_said(llm: ls.LLM, tmp_path: Path) -> None:
    settings = {"layers": [2], "strengths": [1.0], "reference_texts": TEXTS, "budget": 1.0}
    result = searched(llm, PAIRS, folder=tmp_path, **settings)  # type: ignore[arg-type]
    assert "beside" not in json.loads((tmp_path / "report.json").read_text())
    assert not [text for text in result.vector.card.warnings if "Beside" in text]


def test_more_damage_than_the_budget_by_the_others_alone_is_refused(llm: ls.LLM) -> None:
    with pytest.raises(ValueError, match=r"block 2, strength 0\.5 alone changes unrelated text by .* budget of 0\.1"):
        ls.steer(llm, PAIRS, [2], reference_texts=TEXTS, beside=[other(llm, 2, 100.0)])


def test_the_damage_of_all_keeps_within_the_budget(llm: ls.LLM) -> None:
    settings = {"layers": [2], "strengths": [0.5, 1.0, 2.0, 4.0], "reference_texts": TEXTS}
    alone = searched(llm, PAIRS, budget=1e9, **settings)  # type: ignore[arg-type]
    push = alone.vector._replace(
        card=alone.vector.card._replace(strength=alone.vector.card.strength._replace(value=1.0))
    )
    budget = 2.5 * float(alone.grid.damage[0, 1])  # damage grows with the square: 2.25 at 1 + .5, 4 at 1 + 1 or 2
    free = searched(llm, PAIRS, budget=budget, **settings)  # type: ignore[arg-type]
    assert free.vector.card.strength.value == 1.0
    crowded = searched(llm, PAIRS, budget=budget, beside=[push], **settings)  # type: ignore[arg-type]
    assert crowded.vector.card.strength.value == 0.5


def test_vectors_of_other_tokens_places_or_models_are_refused(llm: ls.LLM) -> None:
    vector = other(llm, 2)
    steers_last = backbone(ls.LLM(BASE, 2, positions=LastPromptToken()), 2)
    with pytest.raises(ValueError, match=r"steers AllTokens, and the new one LastPromptToken.*--positions"):
        Beside.of(steers_last, [vector])
    nowhere = vector._replace(card=vector.card._replace(sites=[vector.card.sites[0]._replace(layer=None)]))
    with pytest.raises(ValueError, match="acts on no decoder block"):
        Beside.of(llm, [nowhere])
    assert vector.card.model is not None
    foreign = vector.card._replace(model=vector.card.model._replace(configuration="0" * 64))
    with pytest.raises(ValueError, match="model"):
        Beside.of(llm, [vector._replace(card=foreign)])


def test_the_command(workshop: Path, capsys: pytest.CaptureFixture[str], llm: ls.LLM) -> None:
    other(llm, 3).save("other.safetensors")
    (workshop / "pairs.jsonl").write_text("".join(json.dumps(pair._asdict()) + "\n" for pair in PAIRS))
    command = ["steer", "--llm", BASE, "--pairs", "pairs.jsonl", "--layers", "2", "--strengths", "1", "--budget", "1"]
    command += ["--prompt", PAIRS[0].prompt, "--max_new_tokens", "6"]
    assert main([*command, "--beside", "other.safetensors"]) == 0
    output = capsys.readouterr().out
    assert "Beside MeanDifference at block 3, strength 0.5: on 12 held-out pairs" in output
    vector = ls.load("logs/steer/pairs/vector.safetensors")
    with vectors.edit(llm, [vector, ls.load("other.safetensors")]):
        together = llm.generate(PAIRS[0].prompt, 6)
    assert f"steered:  {together}".rstrip() in output
    assert main([*command, "--out", "again", "--beside", "nowhere.safetensors"]) == 2
    assert "there is no vector file" in capsys.readouterr().err
    assert not Path("again").exists()


def test_a_part_of_a_search_beside_other_vectors_is_not_taken(llm: ls.LLM) -> None:
    vector, two = other(llm, 2), other(llm, 2, 9.0)
    contents = [Beside.of(llm, group).content for group in ([], [vector], [two], [vector, two])]
    assert len(set(contents)) == 4
    assert Beside.of(llm, [vector]).content == contents[1]
    stronger = vector._replace(card=vector.card._replace(strength=vector.card.strength._replace(value=2.0)))
    assert Beside.of(llm, [stronger]).content != contents[1]
    edits = Beside.of(llm, [stronger]).edits
    h = torch.randn(2, 3, llm.width(llm.sites[0]))
    torch.testing.assert_close(edits[llm.site(2)](h), partial(vector.maps[0], strength=2.0)(h))


def test_a_trained_vector_is_judged_beside_others(llm: ls.LLM) -> None:
    """Its parameters take gradients, which figures do not."""
    result = searched(
        llm, PAIRS, [2], LearnedVector, strengths=[1.0], reference_texts=TEXTS, budget=99.0, epochs=1,
        beside=[other(llm, 3, 0.01)],
    )  # fmt: skip
    assert "interaction" in " ".join(result.vector.card.warnings)


@pytest.mark.parametrize("command", ["steer", "chat"])
def test_a_file_that_is_named_twice_is_refused(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--llm", "x", "--beside", "a.safetensors", "b.safetensors", "./a.safetensors"])
    assert ended.value.code == 2
    assert "--beside a.safetensors is named twice" in capsys.readouterr().err
