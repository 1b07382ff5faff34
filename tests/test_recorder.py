"""``predict`` builds the very cache that ``ensure`` builds, on any number of processes; data modules read it."""

import json
import os
from pathlib import Path

import lightning as L
import pytest
import torch
from conftest import quiet_trainer
from decoders import decoder, letters
from disks import full

from lightning_steer.__main__ import main
from lightning_steer.cache import Cache, ensure, files, locked
from lightning_steer.data import ToyDataModule
from lightning_steer.data.activations import ActivationsDataModule, Recorded
from lightning_steer.lm.language_model import LLM
from lightning_steer.modules.recorder import ActivationRecorder

TEXTS = [f"{'abc de' * (i % 5)} {'xyz'[i % 3]}{'pqrst'[i % 5]}" for i in range(23)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    decoder("llama").save_pretrained(folder)
    letters().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def file(tmp_path: Path) -> str:
    lines = [json.dumps({"text": text, "prompt": text[:-1], "completion": text[-1]}) for text in TEXTS]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines))
    return str(tmp_path / "texts.jsonl")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def record(model: str, data: ActivationsDataModule, devices: int = 1, **trainer: object) -> None:
    strategy = {"strategy": "ddp_fork"} if devices > 1 else {}
    recorder = ActivationRecorder(LLM(model, layers=[0, 2]))
    quiet_trainer(devices=devices, **strategy, **trainer).predict(recorder, data)


@pytest.mark.parametrize(("devices", "texts_per_shard"), [(1, 3), (2, 3), (2, 100)], ids=["one", "two", "one idle"])
def test_any_number_of_processes_records_what_one_does(
    devices: int, texts_per_shard: int, model: str, file: str, tmp_path: Path
) -> None:
    ensure(LLM(model, layers=[0, 2]), TEXTS, tmp_path / "alone", texts_per_shard=texts_per_shard)
    folder = tmp_path / "cache"
    for _ in range(2):  # the second finds all done
        record(model, ActivationsDataModule(file, str(folder), texts_per_shard=texts_per_shard), devices)
        assert content(folder) == content(tmp_path / "alone")


def test_two_processes_go_on_from_what_one_left(
    model: str, file: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = ActivationsDataModule(file, str(tmp_path / "cache"), texts_per_shard=3)
    record(model, data)
    whole = content(tmp_path / "cache")
    lost = sorted(tmp_path.glob("cache/*.safetensors"))[2::3]
    for shard in lost:
        shard.unlink()
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("cache/*.safetensors")}
    capfd.readouterr()
    record(model, data, 2)
    output = capfd.readouterr().out
    assert "shard 2, 5 is missing" in output
    assert "2 of 8 shards are left to do" in output
    assert "is complete: 23 rows of layers [0, 2]" in output
    assert content(tmp_path / "cache") == whole
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())


def test_prompts_and_completions_are_one_text(model: str, file: str, tmp_path: Path) -> None:
    record(model, ActivationsDataModule(file, str(tmp_path / "a")))
    record(model, ActivationsDataModule(file, str(tmp_path / "b"), prompt="prompt", completion="completion"))
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_a_failure_leaves_the_folder_open_to_another_try(
    model: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ActivationsDataModule(file, str(tmp_path / "cache"), texts_per_shard=3)
    record(model, data)
    whole = content(tmp_path / "cache")
    shard = sorted(tmp_path.glob("cache/*.safetensors"))[4]
    shard.unlink()
    recorder = ActivationRecorder(LLM(model, layers=[0, 2]))
    with monkeypatch.context() as disk:
        full(disk, shard.name)
        with pytest.raises(OSError, match="No space left on device"):
            quiet_trainer().predict(recorder, data)
    record(model, data)
    assert content(tmp_path / "cache") == whole
    with locked(tmp_path / "cache"), pytest.raises(OSError, match="another process is recording"):
        record(model, data)


def test_what_predict_cannot_do_is_refused(model: str, file: str, tmp_path: Path) -> None:
    data = ActivationsDataModule(file, str(tmp_path / "cache"), texts_per_shard=3)
    with pytest.raises(ValueError, match="recorded of an ActivationsDataModule, not of a ToyDataModule"):
        record(model, ToyDataModule())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="leave use_distributed_sampler false and limit_predict_batches alone"):
        record(model, data, limit_predict_batches=2)
    with pytest.raises(ValueError, match="give it an ActivationRecorder as its model"):
        quiet_trainer().predict(Reader(), ActivationsDataModule(file, str(tmp_path / "cache")))
    spread = ActivationRecorder(LLM(model, layers=[0, 2], device_map="auto"))
    with pytest.raises(Exception, match=r"device_map .auto. spreads the model over the devices of one process"):
        quiet_trainer(devices=2, strategy="ddp_fork").predict(spread, data)
    alone = ActivationRecorder(LLM(model, layers=[0, 2], device_map="auto"))
    with pytest.raises(Exception, match="without a distributed strategy, or leave it out"):
        quiet_trainer(strategy="ddp_fork").predict(alone, data)
    for precision in ("bf16-true", "bf16-mixed"):
        with pytest.raises(ValueError, match=rf"trainer.precision {precision} is not recorded: say with the backbone"):
            record(model, data, precision=precision)
    with pytest.raises(FileNotFoundError, match="no text file at nowhere"):
        record(model, ActivationsDataModule("nowhere", str(tmp_path / "cache")))
    with pytest.raises(ValueError, match="give prompt and completion, or neither"):
        ActivationsDataModule(file, "cache", prompt="prompt")
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        ActivationsDataModule(file, "cache", batch_size=0)
    with pytest.raises(FileNotFoundError, match="there is no cache in"):
        ActivationsDataModule(file, str(tmp_path / "none")).setup()


class Reader(L.LightningModule):
    """Looks at what it is given."""

    def __init__(self, backbone: LLM | None = None) -> None:
        super().__init__()
        self.backbone, self.seen = backbone, list[list[Recorded]]()
        self.nothing = torch.nn.Parameter(torch.zeros(()))

    def on_train_epoch_start(self) -> None:
        self.seen.append([])

    def training_step(self, batch: Recorded, _batch_idx: int) -> torch.Tensor:
        self.seen[-1].append(batch)
        return 0 * self.nothing

    def validation_step(self, _batch: Recorded, _batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> None:
        return None

    def predict_step(self, _batch: Recorded, _batch_idx: int) -> int:
        return 0


def test_a_module_with_a_language_model_records_before_it_fits(model: str, file: str, tmp_path: Path) -> None:
    data = ActivationsDataModule(file, str(tmp_path / "cache"), batch_size=5)
    reader = Reader(LLM(model, layers=[0, 2]))
    quiet_trainer(max_epochs=2, limit_val_batches=0).fit(reader, data)
    cache = Cache(tmp_path / "cache")
    for epoch in reader.seen:
        assert [len(batch.row) for batch in epoch] == [5, 5, 5, 5, 3]
        assert sorted(torch.cat([batch.row for batch in epoch]).tolist()) == list(range(23))
        for batch in epoch:
            assert torch.equal(batch.h, cache.rows(batch.row))
    first, second = (torch.cat([batch.row for batch in epoch]).tolist() for epoch in reader.seen)
    assert first != second != list(range(23))
    again = Reader()
    quiet_trainer(limit_val_batches=0).fit(again, ActivationsDataModule(file, str(tmp_path / "cache"), batch_size=5))
    assert torch.cat([batch.row for batch in again.seen[0]]).tolist() == first  # the same seed, the same batches
    data.setup()
    in_order = torch.cat([batch.row for batch in data.val_dataloader()])
    assert in_order.tolist() == list(range(23))


def test_a_cache_that_cannot_be_written_can_be_reused(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = LLM(model, layers=[0, 2])
    ensure(llm, TEXTS, tmp_path)
    before, plain = content(tmp_path), os.open

    def read_only(path: Path, flags: int, mode: int = 0o777, **more: int) -> int:
        if flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied", str(path))
        return plain(path, flags, mode, **more)

    monkeypatch.setattr(files.os, "open", read_only)
    assert len(ensure(llm, TEXTS, tmp_path)) == 23
    assert content(tmp_path) == before


def test_the_shipped_configuration_records(
    model: str, file: str, workshop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["predict", "--config", "configs/cache.yaml", "--trainer.enable_progress_bar=false"]
    command += ["--model.init_args.backbone.init_args.llm", model, "--data.init_args.file", file]
    command += ["--model.init_args.backbone.init_args.layers", "[0, -2]", "--trainer.accelerator", "cpu"]
    assert main(command) == 0
    output = capsys.readouterr().out
    assert "Recording 23 texts in checkpoints/cache/pocket: 1 of 1 shards are left to do." in output
    assert "The cache in checkpoints/cache/pocket is complete: 23 rows of layers [0, 2]." in output
    alone = ensure(LLM(model, layers=[0, 2]), TEXTS, workshop / "alone")
    assert content(Path("checkpoints/cache/pocket")) == content(alone.folder)
    assert main([*command, "--data.init_args.dtype=float16"]) == 0
    assert "differs in dtype (it has bfloat16, not float16)" in capsys.readouterr().out
    assert main([*command, "--model.init_args.backbone.init_args.layers", "[7]"]) == 2
    assert "layer 7 does not exist" in capsys.readouterr().err
