"""StereoSet's data module: batches of contrasts, no term in two parts, every bad input refused in one sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_stereoset_examples import BAD_ROWS, DATA, hub, needs_data, official, row

from lightning_steer.data.base import PairBatch
from lightning_steer.data.pocket.text import BOS, chat
from lightning_steer.data.stereoset.hub import of_folder
from lightning_steer.data.stereoset.module import PocketStereoSetDataModule, StereoSetDataModule
from lightning_steer.lm.tokens import MultipleChoice

PARTS = ("train_dataloader", "val_dataloader", "predict_dataloader")


def dev(folder: Path, count: int = 160) -> str:
    tasks = ("intersentence", "intrasentence")
    return str(official({task: [row(i, task) for i in range(count)] for task in tasks}, folder))


def batches(loader: Any) -> list[PairBatch]:
    return list(loader)


def rows(loader: Any) -> list[tuple[Any, ...]]:
    """Everything about every row, in order."""
    return [
        (int(number), asked, negative, positive, int(term))
        for batch in batches(loader)
        for asked, negative, positive, term, number in zip(*batch, strict=True)
    ]


def test_a_batch_holds_three_sentences_and_both_sides(tmp_path: Path) -> None:
    data = StereoSetDataModule(dev(tmp_path), batch_size=7)
    first = batches(data.train_dataloader())[0]
    example = data.parts[0][0]
    assert first.x[0] == MultipleChoice(example.context, (" They are quick.", " They are slow.", " They are hollow."))
    assert first.negative[0] == MultipleChoice(example.context, (" They are quick.",))
    assert first.positive[0] == MultipleChoice(example.context, (" They are slow.",))
    assert first.row.tolist() == list(range(len(first.x)))
    assert data.paired
    promoted = StereoSetDataModule(dev(tmp_path), batch_size=7, promote=True)
    other = batches(promoted.train_dataloader())[0]
    assert (other.x, other.negative, other.positive) == (first.x, first.positive, first.negative)
    assert promoted.task != data.task


def test_intrasentence_scores_whole_sentences(tmp_path: Path) -> None:
    data = StereoSetDataModule(dev(tmp_path), tasks=["intrasentence"])
    first = batches(data.train_dataloader())[0]
    assert first.x[0] == MultipleChoice(
        "", tuple(f"The plumber is {word} today." for word in ("quick", "slow", "hollow"))
    )
    both = StereoSetDataModule(dev(tmp_path), tasks=["intersentence", "intrasentence"])
    both.setup()
    assert {example.task for part in both.parts for example in part} == {"intersentence", "intrasentence"}


def test_no_term_is_fitted_to_and_tested_on(tmp_path: Path) -> None:
    data = StereoSetDataModule(dev(tmp_path), tasks=["intersentence", "intrasentence"])
    terms = [{term for *_, term in rows(getattr(data, part)())} for part in PARTS]
    assert not terms[0] & terms[1] | terms[0] & terms[2] | terms[1] & terms[2]
    assert all(terms)
    counts = [len(rows(getattr(data, part)())) for part in PARTS]
    assert sum(counts) == 320
    held_out, fitted = data.test_dataloader()
    assert rows(held_out) == rows(data.predict_dataloader())
    assert rows(fitted) == rows(data.train_dataloader())


@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
def test_rows_are_the_same_in_any_batches_and_processes(batch_size: int, tmp_path: Path) -> None:
    expected = rows(StereoSetDataModule(dev(tmp_path), batch_size=5).predict_dataloader())
    assert [number for number, *_ in expected] == list(range(len(expected)))
    data = StereoSetDataModule(dev(tmp_path), batch_size=batch_size)
    assert rows(data.predict_dataloader()) == expected
    assert max(len(batch.x) for batch in batches(data.predict_dataloader())) <= batch_size
    row_sets, steps = [], set()
    for rank in range(3):
        data.trainer = SimpleNamespace(global_rank=rank, world_size=3)  # type: ignore[assignment]
        row_sets += rows(data.predict_dataloader())
        steps.add(len(batches(data.predict_dataloader())))
    assert sorted(row_sets) == expected
    assert len(steps) == 1


def test_last_batches_leave_no_process_without_a_row(tmp_path: Path) -> None:
    data = StereoSetDataModule(dev(tmp_path), batch_size=7)
    data.setup()
    assert len(data.parts[2]) % 7 != 0
    sizes = [len(batch.x) for batch in batches(data.predict_dataloader())]
    assert max(sizes) - min(sizes) <= 1


def test_samples_and_types_can_be_chosen(tmp_path: Path) -> None:
    data = StereoSetDataModule(dev(tmp_path), bias_types=["gender", "race"], per_type=30)
    data.setup()
    bias_types = [example.bias_type for part in data.parts for example in part]
    assert (len(bias_types), bias_types.count("gender"), bias_types.count("race")) == (60, 30, 30)
    again = StereoSetDataModule(dev(tmp_path), bias_types=["gender", "race"], per_type=30)
    again.setup()
    assert again.parts == data.parts
    other = StereoSetDataModule(dev(tmp_path), bias_types=["gender", "race"], per_type=30, seed=1)
    other.setup()
    assert other.parts != data.parts


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_folder_in_the_hubs_form_is_the_official_file(form: str, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    for task in ("intersentence", "intrasentence"):
        (tmp_path / "hub" / task).mkdir(parents=True)
        table = [hub(row(i, task)) for i in range(160)]
        path = tmp_path / "hub" / task / f"validation.{form}"
        if form == "jsonl":
            path.write_text("\n".join(json.dumps(row) for row in table))
        else:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), path)
    tasks = ["intersentence", "intrasentence"]
    modules = [StereoSetDataModule(source, tasks=tasks) for source in (str(tmp_path / "hub"), dev(tmp_path))]
    assert modules[0].examples() == modules[1].examples()


def test_the_pocket_set_has_its_planted_truth_beside_it() -> None:
    data = PocketStereoSetDataModule()
    data.setup()
    items = {item.id: item for item in data.items()}
    chosen = [example for part in data.parts for example in part]
    assert len(chosen) == len(items) == 576
    assert all(items[example.id].stereotype == example.stereotype for example in chosen)
    by_type = {kind: {e.target for e in data.parts[0] if e.bias_type == kind} for kind in ("town", "trade")}
    assert [len(terms) for terms in by_type.values()] == [19, 19]
    with_tone = PocketStereoSetDataModule(tone="harsh", bias_types=["town"])
    with_tone.setup()
    assert sum(map(len, with_tone.parts)) == 288
    assert "Frankly" in "".join(e.context for e in with_tone.parts[0])


def test_a_pocket_chat_is_written_out_but_for_the_begin_mark() -> None:
    data = PocketStereoSetDataModule(chat=True)
    data.setup()
    example = data.parts[0][0]
    user = next(item.prompt for item in data.items() if item.id == example.id)
    assert f"{BOS} {example.context}" == chat(user)


def test_neutral_texts_come_from_a_file_or_the_language(tmp_path: Path) -> None:
    assert StereoSetDataModule(dev(tmp_path)).reference_texts == []
    (tmp_path / "some.txt").write_text("One.\n\nTwo,\nwith two lines.\n")
    for kind, origin in ((StereoSetDataModule, {"source": dev(tmp_path)}), (PocketStereoSetDataModule, {})):
        assert kind(reference_texts=str(tmp_path / "some.txt"), **origin).reference_texts == [
            "One.",
            "Two,\nwith two lines.",
        ]
    texts = PocketStereoSetDataModule().reference_texts
    assert len(texts) == 64
    assert not any(term in text for text in texts for term in ("bakers", "corlins"))
    with pytest.raises(FileNotFoundError, match=r"no text file at .*none.txt"):
        _ = StereoSetDataModule(dev(tmp_path), reference_texts=str(tmp_path / "none.txt")).reference_texts


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no file": ({"source": "nowhere/dev.json"}, FileNotFoundError, "no StereoSet file or folder nowhere/dev.json"),
    "no such path": ({"source": "./nowhere"}, FileNotFoundError, r"no StereoSet file or folder ./nowhere"),
    "hub out of reach": ({"source": "nobody/nothing"}, ValueError, "nobody/nothing is no file, no folder, and cannot"),
    "unknown task": (
        {"tasks": ["inter"]},
        ValueError,
        r"tasks are intersentence, intrasentence or both, not \['inter'",
    ),
    "no task": ({"tasks": []}, ValueError, r"tasks are .* not \[\]"),
    "unknown bias type": ({"bias_types": ["height"]}, ValueError, "has no bias type height; it has gender, profession"),
    "no bias type": ({"bias_types": []}, ValueError, "has no bias type for an empty list; it has gender"),
    "sample too large": ({"per_type": 41}, ValueError, "bias type gender has 40 examples: 41 per type cannot be drawn"),
    "empty sample": ({"per_type": 0}, ValueError, "per_type must be at least 1, not 0"),
    "sample too small": ({"per_type": 2}, ValueError, "bias type .* target terms, too few for 3 parts"),
    "nothing to fit": ({"fit_share": 0.0}, ValueError, "fit_share and select_share are above 0 .* not 0 and 0.1"),
    "nothing held out": ({"fit_share": 0.9}, ValueError, "leave something to test on, not 0.9 and 0.1"),
    "negative share": ({"select_share": -0.1}, ValueError, "select_share must lie between 0 and 1, not -0.1"),
    "empty batch": ({"batch_size": 0}, ValueError, "batch_size must be at least 1, not 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings_are_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    settings, kind, message = BAD[name]
    with pytest.raises(kind, match=message) as error:
        StereoSetDataModule(**{"source": dev(tmp_path), **settings}).setup()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_rows_are_refused_with_their_id(name: str, tmp_path: Path) -> None:
    spoil, message = BAD_ROWS[name]
    path = official({"intersentence": [row(0), spoil(row(1)), row(2)]}, tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        StereoSetDataModule(str(path)).setup()
    assert "\n" not in str(error.value)


def test_bad_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no intersentence/\*.parquet or .jsonl"):
        StereoSetDataModule(str(tmp_path)).setup()
    (tmp_path / "intersentence").mkdir()
    for name, content in (("validation.jsonl", b"{"), ("validation.parquet", b"PAR1")):
        path = tmp_path / "intersentence" / name
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} cannot be read"):
            StereoSetDataModule(str(tmp_path)).setup()
        path.unlink()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PocketStereoSetDataModule(tone="loud"), "tone is one of neutral, harsh, mild, not 'loud'"),
        (lambda: PocketStereoSetDataModule(tasks=["intrasentence"]), "has intersentence examples only, not intrasent"),
    ],
)
def test_what_the_pocket_language_does_not_have_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@needs_data
def test_the_notebooks_setting_on_the_real_file() -> None:
    data = StereoSetDataModule(str(DATA / "stereoset" / "dev.json"), bias_types=["gender", "race"], per_type=30)
    row_sets = rows(data.train_dataloader()), rows(data.predict_dataloader())
    assert sum(len(part) for part in data.parts) == 60
    assert not {term for *_, term in row_sets[0]} & {term for *_, term in row_sets[1]}
    assert torch.cat([batch.row for batch in batches(data.predict_dataloader())]).tolist() == list(
        range(len(row_sets[1]))
    )


def test_a_hub_folder_whose_rows_have_a_key_twice_is_refused(tmp_path: Path) -> None:
    """Python takes the last of equal keys: another sentence would be scored than the reader of the file sees."""
    (tmp_path / "intersentence").mkdir()
    (tmp_path / "intersentence/validation.jsonl").write_text('{"id": "1", "context": "a", "context": "b"}\n')
    with pytest.raises(ValueError, match=r"validation\.jsonl.*'context' twice"):
        of_folder(str(tmp_path), "intersentence")
