"""A sparse autoencoder trained by Lightning: it finds what was planted, and others read what it wrote."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import ROOT, quiet_trainer
from test_mera_study import folder
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_steer.__main__ import main
from lightning_steer.data.activations import Recorded
from lightning_steer.data.base import SteeringDataModule
from lightning_steer.data.batches import share
from lightning_steer.hooks import Edit
from lightning_steer.methods import SAEMERA
from lightning_steer.modules.sparse_autoencoder import SparseCoder
from lightning_steer.networks import Backbone
from lightning_steer.probes.sparse_autoencoder import read_sparse_autoencoder, scaling, train_sparse_autoencoder
from lightning_steer.records import Activations
from lightning_steer.studies.mera.cells import encodings

D, M, N, HELD_OUT = 12, 16, 1200, 300


def planted(n: int = N + HELD_OUT, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows ``[2, n, d]`` that are sums of few of 16 directions, each in a tenth of the rows."""
    g = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(2, M, D, generator=g), dim=-1)
    z = (torch.rand(n, M, generator=g) < 0.1) * (1 + torch.rand(n, M, generator=g))
    return z @ directions + torch.tensor([3.0, -1.0]).view(2, 1, 1), directions


class Nothing(Backbone):
    """Two sites whose activations are recorded already."""

    sites, name = ["first", "second"], "nothing"

    def load(self) -> None: ...

    def check(self, data: Any) -> None: ...

    def width(self, site: str) -> int:
        return D

    def activations(self, inputs: Any) -> dict[str, Tensor]:
        raise AssertionError("the network was run")

    def scores(self, inputs: Any, edits: Mapping[str, Edit] | None = None, copies: int = 1) -> Tensor:
        raise AssertionError("the network was run")


class Rows(SteeringDataModule):
    """The planted rows in batches of 131, which no two processes share evenly."""

    task = "planted"

    def loader(self, first: int, end: int) -> DataLoader[Recorded]:
        h = planted()[0][:, first:end]
        row = torch.arange(h.shape[1])
        parts = [rows_of_part[share(self)] for rows_of_part in row.split(131)]
        return DataLoader([Recorded(rows_of_part, h[:, rows_of_part]) for rows_of_part in parts], batch_size=None)  # type: ignore[arg-type]

    def train_dataloader(self) -> DataLoader[Recorded]:
        return self.loader(0, N)

    def val_dataloader(self) -> DataLoader[Recorded]:
        return self.loader(N, N + HELD_OUT)

    test_dataloader = val_dataloader

    def row_parts(self) -> list[Any]:
        return [{"planted": N}, {"planted": HELD_OUT}, []]


def fitted(out: Path, epochs: int, devices: int = 1) -> SparseCoder:
    coder = SparseCoder(Nothing(), features=3, sparsity=0.05)
    settings: dict[str, Any] = {"devices": devices} | ({"strategy": "ddp_fork"} if devices > 1 else {})
    quiet_trainer(default_root_dir=out, max_epochs=epochs, **settings).fit(coder, Rows())
    return coder


def test_planted_directions_are_found_and_written_for_every_site(tmp_path: Path) -> None:
    coder = fitted(tmp_path, 120)
    h, directions = planted()
    centre, scale = scaling(h[:, :N])
    torch.testing.assert_close(coder.centre, centre, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(coder.scale, scale, rtol=1e-5, atol=1e-5)
    quiet_trainer(default_root_dir=tmp_path).test(coder, Rows(), verbose=False)
    report = json.loads((tmp_path / "report.json").read_text())
    held = h[:, N:]
    for i, site in enumerate(Nothing.sites):
        sae = read_sparse_autoencoder(tmp_path / site, D)
        assert ((directions[i] @ sae.W_dec.T).amax(1) > 0.9).sum() >= 12
        z = sae.encode(held[i])
        lost = (held[i] - sae.decode(z)).square().sum() / (held[i] - centre[i]).square().sum()
        assert lost < 0.15
        figures = report["layers"][site]
        assert figures["variance_lost"]["value"] == pytest.approx(float(lost), rel=1e-4)
        assert figures["active_features"]["value"] == pytest.approx(float((z > 0).double().sum(1).mean()), rel=1e-5)
        for estimate in figures.values():
            assert estimate["low"] < estimate["value"] < estimate["high"]
            assert estimate["n"] == HELD_OUT
    assert report["core_seconds"] > 0
    assert "features on" in (tmp_path / "report.md").read_text()


def test_features_of_too_few_rows_are_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of training; with a high threshold, as planted directions are all frequent."""
    h, features = planted()[0][:, :N], {}
    for least in (0, 200):
        for kind in ("modules", "probes"):
            monkeypatch.setattr(f"lightning_steer.{kind}.sparse_autoencoder.LEAST", least)
        fitted(tmp_path / str(least), 40)
        ours = read_sparse_autoencoder(tmp_path / str(least) / "first", D)
        features[least] = [(sae.encode(h[0]) > 0).sum(0) for sae in (ours, train_sparse_autoencoder(h[0], 3 * D, 0.05))]
    for all_of_them, frequent in zip(features[0], features[200], strict=True):
        assert ((all_of_them > 0) & (all_of_them < 200)).any()
        assert (all_of_them >= 200).any()
        assert torch.equal(frequent, all_of_them.where(all_of_them >= 200, 0))


def test_the_method_steers_along_what_was_trained(tmp_path: Path) -> None:
    fitted(tmp_path, 60)
    h = planted()[0][0, :N]
    error = (read_sparse_autoencoder(tmp_path / "first", D).encode(h)[:, :5].sum(1) - 1).sigmoid()
    method = SAEMERA(D, str(tmp_path / "first")).fit(Activations(h, error, torch.zeros(N, 1, dtype=torch.int64), False))
    edited = (method(h, 0.4) != h).any(-1)
    assert 0 < edited.double().mean() < 1
    assert torch.equal(method(h, 1.0), h)


def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    for devices in (1, 2):
        fitted(tmp_path / str(devices), 3, devices)
    for site in Nothing.sites:
        single, two = (read_sparse_autoencoder(tmp_path / str(devices) / site, D) for devices in (1, 2))
        for a, b in zip(single, two, strict=True):
            torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-4)


def test_the_configuration_trains_tests_and_feeds_the_method(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder(workshop / "model", False)
    quick = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
    small = [f"--data.init_args.{name}={n}" for name, n in (("train", 200), ("calibration", 60), ("test", 60))]
    own = ["--model.init_args.backbone.init_args.llm=model", "--model.init_args.backbone.init_args.layers=2"]
    sae = ["--config", "configs/sae.yaml", *own, *small, *quick, "--trainer.max_epochs=10"]
    assert main(["test", *sae]) == 2
    assert "checkpoints/sae/sentiment_analysis/model.layers.2: run fit first" in capsys.readouterr().err
    assert main(["fit", *sae]) == 0, capsys.readouterr().err
    assert main(["test", *sae]) == 0, capsys.readouterr().err
    report = json.loads((workshop / "logs/sae/sentiment_analysis/report.json").read_text())
    assert report["metrics"]["variance_lost"]["n"] == 60
    header = (ROOT / "configs/sae.yaml").read_text()
    where = "checkpoints/sae/sentiment_analysis/model.layers.4"
    assert where in header
    assert yaml.safe_load(header)["data"]["init_args"]["cache"] == "checkpoints/cache/sentiment_analysis"
    steer = ["--config", "configs/steer_mera.yaml", "--config", "configs/methods/mera_sae.yaml", *own, *small, *quick]
    steer += [f"--model.init_args.method.init_args.folder={where[:-1]}2", "--model.init_args.random_draws=2"]
    for command in ("fit", "test"):
        assert main([command, *steer]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("wrong", [{"features": 0}, {"sparsity": -0.1}, {"learning_rate": 0}])
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be (above|at least) [01]"):
        SparseCoder(Nothing(), **wrong)


def test_the_study_scores_features_and_activations_on_the_same_rows() -> None:
    """An error that is the size of one planted feature: seen through both; none is seen where there is none."""
    h, directions = planted(1000)
    seen = (h[0] - 3) @ directions[0, 0]
    seen = seen + 0.01 * seen.std() * torch.randn(1000, generator=torch.Generator().manual_seed(2))  # never all of it
    encoded = encodings(h[0], seen.sub(seen.median()).mul(2).sigmoid())
    for name in ("r2", "r2_activations", "r2_gain"):
        assert encoded[f"{name}_low"] < encoded[name] < encoded[f"{name}_high"]
    assert encoded["r2_gain"] == pytest.approx(encoded["r2"] - encoded["r2_activations"])
    paired = encoded["r2_gain_high"] - encoded["r2_gain_low"]
    assert (
        paired < encoded["r2_high"] - encoded["r2_low"] + encoded["r2_activations_high"] - encoded["r2_activations_low"]
    )
    assert encoded["r2_activations"] > 0.99  # linear in the activations
    assert encoded["r2"] > 0.5
    assert encoded["rows"] == 200
    chance = encodings(h[0], torch.rand(1000, generator=torch.Generator().manual_seed(1)))
    assert max(chance["r2"], chance["r2_activations"]) < 0.1
