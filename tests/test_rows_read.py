"""A record names the rows that were read, where a trainer's limits leave some out; and reports say how many."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from conftest import WORLD, quiet_trainer
from runs import folder_with_models, given
from test_stereoset_data import dev

from lightning_steer import vectors
from lightning_steer.__main__ import main
from lightning_steer.data import (
    BehaviourDataModule,
    MERADataModule,
    PocketDataModule,
    PocketStereoSetDataModule,
    StereoSetDataModule,
    ToyDataModule,
)
from lightning_steer.data.behaviours.module import PocketBehaviour
from lightning_steer.data.mera.tasks import PocketTask
from lightning_steer.runs import row_keys, saving
from lightning_steer.runs.row_keys import Limits

here = pytest.fixture(scope="module", name="here")(folder_with_models)
SMALL = "--data.init_args.batch_size=20"
DATA: dict[str, Callable[[Path], L.LightningDataModule]] = {
    "pocket stereotypes": lambda _: PocketStereoSetDataModule(batch_size=30),
    "stereotypes": lambda folder: StereoSetDataModule(dev(folder), batch_size=1),
    "behaviours": lambda _: BehaviourDataModule(PocketBehaviour("truthful"), batch_size=10),
    "graded": lambda _: MERADataModule(PocketTask("sentiment_analysis"), 60, 20, 20, batch_size=8),
    "pairs": lambda _: ToyDataModule(test_rows=50, batch_size=8, **WORLD),
}
LIMITS: dict[str, dict[str, Any]] = {
    "numbers": {"limit_train_batches": 2, "limit_val_batches": 1},
    "shares": {"limit_train_batches": 0.6, "limit_val_batches": 0.5},
    "overfit": {"overfit_batches": 1},
    "dry": {"fast_dev_run": 1},
    "none": {},
}


class Reader(L.LightningModule):
    """Notes the rows that Lightning gives to each step."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, list[int]] = {"fit": [], "select": []}
        self.automatic_optimization = False

    def training_step(self, batch: Any, _batch_idx: int) -> None:
        self.rows["fit"] += batch.row.tolist()

    def validation_step(self, batch: Any, _batch_idx: int) -> None:
        self.rows["select"] += batch.row.tolist()

    def configure_optimizers(self) -> None:
        return None


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("name", DATA)
def test_the_rows_of_a_record_are_those_that_lightning_reads(name: str, limits: str, tmp_path: Path) -> None:
    whole = row_keys.part_rows(DATA[name](tmp_path))
    data, reader = DATA[name](tmp_path), Reader()
    trainer = quiet_trainer(**LIMITS[limits], default_root_dir=tmp_path)
    trainer.fit(reader, data)
    trainer.state.fn = L.pytorch.trainer.states.TrainerFn.FITTING
    record = row_keys.part_rows(data)
    for part, every, rows in zip(record, whole, reader.rows.values(), strict=True):
        assert part == [every[row] for row in rows]
    assert (record == whole) == (limits == "none")
    assert bool(row_keys.left_out(data)) == (limits != "none")


def test_batches_that_are_others_in_every_epoch_are_told_by_their_number() -> None:
    data = PocketDataModule()
    parts = [row_keys.part_rows(data, Limits(fit))[0] for fit in (1.0, 1, 2, 10**6)]
    assert len({tuple(part) for part in parts}) == 3
    assert parts[0] == parts[3], "a limit that cuts nothing is none"


def test_a_method_fitted_to_some_batches_is_of_those_rows(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(here)
    few = ["--trainer.limit_train_batches=1", SMALL]

    def command(name: str, *more: str) -> list[str]:
        return given(name, "steer_stereoset", "mean_difference", *more)

    assert main(command("fit", "--run=few", *few)) == 0
    assert main(command("fit", "--run=all", SMALL)) == 0
    folders = [Path("checkpoints/steer_stereoset", run) for run in ("few", "all")]
    records = [json.loads(saving.load(folder / "best.ckpt")["provenance"]) for folder in folders]
    few_rows, every = (record["fitted_rows"] for record in records)
    n = len(few_rows)
    assert 0 < n <= 20 < len(every)
    assert few_rows == every[:n]
    assert records[0]["selection_rows"] == records[1]["selection_rows"]
    for folder, record in zip(folders, records, strict=True):
        assert main(["export", str(folder), f"{folder.name}.safetensors"]) == 0, capsys.readouterr().err
        card = vectors.load(f"{folder.name}.safetensors").card
        assert card.data == sha256(json.dumps(record["fitted_rows"]).encode()).hexdigest()
    capsys.readouterr()
    assert main(command("test", "--run=few", SMALL)) == 2
    assert f"fitted rows {n} rows" in capsys.readouterr().err
    assert main(command("test", "--run=few", "--model.init_args.learning_curve=true", *few)) == 0
    report = json.loads(Path("logs/steer_stereoset/few/report.json").read_text())
    assert f"Only {n} of the {len(every)} training rows were fitted to" in " ".join(report["warnings"])
    assert report["curves"]["pairs"]["x"][-1] == n
    assert main(command("fit", "--run=all", *few)) == 2
    assert "is a finished run of something else (fitted rows" in capsys.readouterr().err


def test_a_report_says_how_many_rows_were_tested(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    arguments = ["steer_behaviour", "mean_difference", "--run=tested", SMALL]
    assert main(given("fit", *arguments)) == 0
    assert main(given("test", *arguments)) == 0
    path = Path("logs/steer_behaviour/tested/report.json")
    every = json.loads(path.read_text())
    assert not any("held-out rows were tested" in sentence for sentence in every["warnings"])
    assert main(given("test", *arguments, "--trainer.limit_test_batches=1")) == 0
    report = json.loads(path.read_text())
    measure = next(iter(report["metrics"]))
    n, whole = (rows_tested["metrics"][measure]["n"] for rows_tested in (report, every))
    assert 0 < n <= 20 < whole
    sentence = f"Only {n} of the {whole} held-out rows were tested"
    assert any(text.startswith(sentence) for text in report["warnings"])
    assert sentence in path.with_name("report.md").read_text()
