"""The behaviour data module: four kinds of files and the pocket language, split by prompt, bad input refused."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_behaviour_examples import BAD, DATA, READERS, choices, halves, needs_data, pairs, personas, write
from test_stereoset_data import batches, rows

from lightning_steer.data.behaviours.module import (
    BehaviourDataModule,
    BehaviourSource,
    ChoicesFile,
    HalvesFile,
    PairsFile,
    PersonaFile,
    PocketBehaviour,
    ResponsesFile,
)
from lightning_steer.lm.tokens import MultipleChoice

PARTS = ("train_dataloader", "val_dataloader", "predict_dataloader")


def source(kind: str, folder: Path, count: int = 12) -> BehaviourSource:
    made = {"pairs": pairs, "halves": halves, "choices": choices, "personas": personas}
    path = str(write(folder, made[kind](count)))
    return {
        "pairs": lambda: PairsFile(path),
        "halves": lambda: HalvesFile(path, "patience", True),
        "choices": lambda: ChoicesFile(path, "sycophancy"),
        "personas": lambda: PersonaFile(path, "extraversion"),
    }[kind]()


@pytest.mark.parametrize("kind", ["pairs", "halves", "choices", "personas"])
def test_every_kind_of_file_becomes_contrasts(kind: str, tmp_path: Path) -> None:
    data = BehaviourDataModule(source(kind, tmp_path))
    batch = batches(data.train_dataloader())[0]
    example = data.parts[0][0]
    assert batch.x[0] == MultipleChoice(example.prompt, (f" {example.positive}", f" {example.negative}"))
    assert batch.positive[0].choices == (f" {example.positive}",)
    assert batch.negative[0].choices == (f" {example.negative}",)
    assert data.paired
    clusters = [{cluster for *_, cluster in rows(getattr(data, part)())} for part in PARTS]
    assert [len(part) for part in clusters] == [5, 1, 6]
    assert not clusters[0] & clusters[1] | clusters[0] & clusters[2] | clusters[1] & clusters[2]
    other = BehaviourDataModule(source(kind, tmp_path), suppress=True)
    turned = batches(other.train_dataloader())[0]
    assert (turned.x, turned.positive, turned.negative) == (batch.x, batch.negative, batch.positive)
    assert "away from" in other.task
    assert "towards" in data.task


def test_the_polarity_of_the_halves_is_what_the_configuration_says(tmp_path: Path) -> None:
    path = str(write(tmp_path, halves(6)))
    first, second = (BehaviourDataModule(HalvesFile(path, "x", polarity)) for polarity in (True, False))
    a, b = (batches(data.train_dataloader())[0] for data in (first, second))
    assert [q.choices for q in a.x] == [q.choices[::-1] for q in b.x]
    assert "Later" in a.positive[0].choices[0]
    assert "Now" in b.positive[0].choices[0]


def test_pocket_topics_stay_together_and_have_their_planted_margin() -> None:
    origin = PocketBehaviour("myopia", per_topic=4)
    data = BehaviourDataModule(origin)
    data.setup()
    topics = [{example.id.split("/")[0] for example in part} for part in data.parts]
    assert [len(part) for part in topics] == [8, 2, 10]
    assert not topics[0] & topics[1] | topics[0] & topics[2] | topics[1] & topics[2]
    truth = {e.id: item for e, item in zip(origin.read(), origin.items(), strict=True)}
    assert all(truth[e.id].positive == e.positive for part in data.parts for e in part)
    assert len({e.id for e in origin.read()}) == 80
    chats = PocketBehaviour("myopia", per_topic=4, chat=True).read()
    assert chats[0].prompt.startswith("You are a kind helper. <user> ")
    assert chats[0].prompt.endswith("Thank you.")


def test_held_out_prompts_can_come_from_another_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    fit = source("pairs", tmp_path / "a")
    new = [{**pair, "prompt": pair["prompt"] + " Say."} for pair in pairs(5)]
    data = BehaviourDataModule(fit, test=PairsFile(str(write(tmp_path / "b", new))))
    assert len(rows(data.predict_dataloader())) == 5
    both = BehaviourDataModule(fit, test=source("pairs", tmp_path / "b"))
    with pytest.raises(ValueError, match="test example 1 has a prompt that is fitted to"):
        both.setup()


def test_rows_are_the_same_over_processes(tmp_path: Path) -> None:
    data = BehaviourDataModule(source("pairs", tmp_path), batch_size=4)
    expected = rows(data.predict_dataloader())
    row_sets = []
    for rank in range(2):
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2)  # type: ignore[assignment]
        row_sets += rows(data.predict_dataloader())
    assert sorted(row_sets) == expected


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_with_the_examples_number(name: str, tmp_path: Path) -> None:
    reader, spoil, message = BAD[name]
    path = str(write(tmp_path, spoil(READERS[reader](3))))
    made = {
        "read_pairs": lambda: PairsFile(path),
        "read_first_positive": lambda: HalvesFile(path, "myopia", True),
        "read_sycophancy": lambda: ChoicesFile(path, "sycophancy"),
        "read_extraversion": lambda: PersonaFile(path, "extraversion"),
    }[reader.__name__]()
    with pytest.raises(ValueError, match=message) as error:
        BehaviourDataModule(made).setup()
    assert "\n" not in str(error.value)


SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "nothing to fit": ({"fit_share": 0.0}, "fit_share and select_share are above 0"),
    "nothing held out": ({"fit_share": 0.95, "select_share": 0.05}, "leave something to test on"),
    "empty batch": ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_bad_settings_are_refused(name: str, tmp_path: Path) -> None:
    settings, message = SETTINGS[name]
    with pytest.raises(ValueError, match=message):
        BehaviourDataModule(source("pairs", tmp_path), **settings)


def test_what_cannot_be_split_or_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 examples with 2 different prompts cannot be parted"):
        BehaviourDataModule(source("pairs", tmp_path, 2)).setup()
    mixed = [{**pair, "behaviour": name} for name in ("a", "b") for pair in pairs(4)]
    path = str(write(tmp_path, mixed))
    with pytest.raises(ValueError, match="has the behaviours a, b: say which one"):
        BehaviourDataModule(PairsFile(path)).setup()
    with pytest.raises(ValueError, match="has no behaviour 'c'; it has a, b"):
        BehaviourDataModule(PairsFile(path, "c")).setup()
    chosen = BehaviourDataModule(PairsFile(path, "b"))
    chosen.setup()
    assert {e.behaviour for part in chosen.parts for e in part} == {"b"}
    with pytest.raises(ValueError, match="the pocket behaviours are myopia, corrigible, truthful, not 'greed'"):
        BehaviourDataModule(PocketBehaviour("greed")).setup()
    with pytest.raises(FileNotFoundError, match="there is no file of behaviour examples"):
        BehaviourDataModule(ChoicesFile(str(tmp_path / "none.json"), "x")).setup()


def test_responses_become_examples(tmp_path: Path) -> None:
    def line(id_: str, strength: float | None, response: str, **other: Any) -> dict[str, Any]:
        common = {"prompt": f"Prompt {id_}?", "system": None, "model": "m", "sample": 0}
        return {"id": id_, "strength": strength, "response": response, **common, **other}

    lines = [line(str(i), c, f"Said {c} {i}.") for i in range(4) for c in (None, -1.0, 1.0)]
    lines += [line("same", c, "Same.") for c in (None, 1.0)]  # tells nothing
    lines += [line("0", 1.0, "Of another.", model="n")]
    path = write(tmp_path, lines)
    examples = ResponsesFile(str(path), "haste", 1.0).read()
    assert [e.id for e in examples] == [f"{i}/0" for i in range(4)]
    assert (examples[0].positive, examples[0].negative) == ("Said 1.0 0.", "Said None 0.")
    assert len(rows(BehaviourDataModule(ResponsesFile(str(path), "haste", 1.0, -1.0)).train_dataloader())) >= 1
    doubled, foreign = tmp_path / "doubled", tmp_path / "foreign"
    doubled.mkdir()
    foreign.mkdir()
    for file, strength, message in (
        (path, 3.0, "has no prompt to which m responds differently at strengths 3.0"),
        (write(doubled, [*lines, lines[2]]), 1.0, "to prompt 0/0 occurs twice"),
        (write(foreign, pairs(3)), 1.0, "line 1: a response has the columns id, prompt"),
    ):
        with pytest.raises(ValueError, match=message):
            ResponsesFile(str(file), "haste", strength).read()


@needs_data
@pytest.mark.parametrize(
    ("name", "first_half_positive"), [("hallucination", True), ("myopia", False), ("corrigible", False)]
)
def test_the_released_files(name: str, first_half_positive: bool) -> None:
    path = DATA / "behaviour" / f"{name}.json"
    data = BehaviourDataModule(HalvesFile(str(path), name, first_half_positive))
    assert sum(len(rows(getattr(data, part)())) for part in PARTS) == path.read_text().count('"question"') // 2 >= 49


@needs_data
def test_caa_fits_to_one_file_and_tests_on_another() -> None:
    folder = DATA / "caa" / "sycophancy"
    fit = ChoicesFile(str(folder / "generate_dataset.json"), "sycophancy")
    data = BehaviourDataModule(fit, test=ChoicesFile(str(folder / "test_dataset_ab.json"), "sycophancy"))
    assert len(rows(data.predict_dataloader())) == 50
