"""Sparse autoencoders of a frozen network's activations, at all of its sites at once.

One file: Lightning calls a module's methods in turn; the mathematics is in :mod:`lightning_steer.probes`.
"""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_steer.data.activations import ActivationsDataModule, Recorded
from lightning_steer.data.base import data_of
from lightning_steer.errors import UserError
from lightning_steer.metrics.columns import as_numbers
from lightning_steer.metrics.table import Table
from lightning_steer.modules import fit_data
from lightning_steer.networks.backbone import Backbone
from lightning_steer.numbers import ranged
from lightning_steer.probes.sparse_autoencoder import (
    LEAST,
    SparseAutoencoder,
    begin,
    read_metadata,
    read_sparse_autoencoder,
    save_sparse_autoencoder,
    unscaled,
    without,
)
from lightning_steer.report.files import write_json, write_text
from lightning_steer.report.tables import markdown
from lightning_steer.runs import provenance
from lightning_steer.runs.traced import TracedModule
from lightning_steer.statistics.kinds import Mean, Smooth


def _ratio(weights: NDArray, lost: NDArray, spread: NDArray) -> NDArray:
    return (weights @ lost) / (weights @ spread)


LOST = Smooth(_ratio, low=0)


class SparseCoder(TracedModule):
    """Learns activations as sums of few directions out of many; the network itself stays as it is.

    Rows come from a data module of activations, or of questions with a ``cache``. Training rows are read once before
    training, for their mean and length, and once after it: features active in fewer than ten rows are switched off.
    ``fit`` writes a folder for every site, which SAELens and ``SAEMERA(folder=...)`` read; ``test`` scores them.

    Args:
        backbone: the frozen network, its layers and the tokens to read.
        features: directions, in multiples of the width.
        sparsity: weight of the features' summed size against the squared error, for rows of unit mean square.
        learning_rate: Adam's.
        folder: where the autoencoders go, ``folder/SITE``; null is the folder of the checkpoint.
        seed: draws the first directions.
    """

    needs_checkpoint = False  # test reads the folders that fit wrote

    @ranged
    def __init__(
        self,
        backbone: Backbone,
        features: int = 4,
        sparsity: float = 0.3,
        learning_rate: float = 3e-3,
        folder: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.backbone, self.features, self.sparsity, self.seed = backbone, features, sparsity, seed
        self.learning_rate, self.folder = learning_rate, folder
        self.strict_loading = False  # the frozen network is not part of a checkpoint
        self.centre: Tensor
        self.scale: Tensor
        self.scored = Table()

    def configure_model(self) -> None:
        """Load the frozen network and draw the first directions; called by the trainer."""
        if hasattr(self, "weights"):
            return
        self.backbone.check(data_of(self.trainer, ActivationsDataModule))
        self.backbone.load()
        self.backbone.requires_grad_(False).eval()
        sites, width = len(self.backbone.sites), self.backbone.width(self.backbone.sites[0])
        settings, data = (
            {"features": self.features, "sparsity": self.sparsity},
            data_of(self.trainer, ActivationsDataModule),
        )
        self.trace(provenance.of(self.backbone, type(self).__name__, settings, data))
        self.weights = nn.ParameterList(begin(torch.zeros(sites, 1, width), self.features * width, self.seed)[:4])
        self.register_buffer("centre", torch.zeros(sites, 1, width))
        self.register_buffer("scale", torch.zeros(sites, 1, 1))

    @property
    def scaled(self) -> SparseAutoencoder:
        """The trained autoencoders ``[sites]``, for rows of mean 0 and unit mean square length."""
        weights = [cast(Tensor, weight) for weight in self.weights]
        return SparseAutoencoder._make([*weights, torch.zeros_like(weights[1])])

    @torch.no_grad()
    def _rows(self, batch: Any) -> Tensor:
        """Return the batch's activations ``[sites, B, d]``, float32."""
        if isinstance(batch, Recorded):
            return batch.h
        h = fit_data.observe(self.backbone, batch)[1]
        return torch.stack([h[site] for site in self.backbone.sites]).float()

    # ---- fit

    @torch.no_grad()
    def _over_training(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the sum of ``function(h [sites, B, d])`` over the training rows of all processes, in float64."""
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for batch in self.training_batches():
            total = total + function(self._rows(self.transfer_batch_to_device(batch, self.device, 0))).double()
        return cast(Tensor, self.trainer.strategy.reduce(total, reduce_op="sum"))

    def on_fit_start(self) -> None:
        """Compute the mean of the rows, and their mean square distance from it."""
        self.began = time.process_time()
        if self.scale.any():  # resumed after an interrupted run
            return
        count = self._over_training(lambda h: torch.tensor(h.shape[1], device=h.device))
        if count < 1:
            raise UserError("there is no row to learn from")
        self.centre = (self._over_training(lambda h: h.double().sum(1, keepdim=True)) / count).to(self.centre)
        square = self._over_training(lambda h: (h - self.centre).double().square().sum((1, 2), keepdim=True))
        self.scale = (square / count).sqrt().clamp_min(1e-12).to(self.scale)

    def training_step(self, batch: Any, _batch_idx: int) -> Tensor:
        h = self._rows(batch)
        if not h.shape[1]:  # a process may get no row of this batch
            loss = cast(Tensor, sum(weight.sum() * 0 for weight in self.weights))
        else:
            loss = self.scaled.loss((h - self.centre) / self.scale, self.sparsity).sum()
        if self.trainer.world_size > 1:  # processes average gradients, so each weights its loss by its rows
            rows = torch.tensor(float(h.shape[1]), device=self.device)
            loss = loss * rows / cast(Tensor, self.trainer.strategy.reduce(rows.clone(), reduce_op="mean"))
        self.log("train/loss", loss, batch_size=max(h.shape[1], 1))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.weights.parameters(), lr=self.learning_rate)

    def on_fit_end(self) -> None:
        """Switch off rare features and write the autoencoders."""
        sae = unscaled(SparseAutoencoder._make(x.detach() for x in self.scaled), self.centre, self.scale)
        active = self._over_training(lambda h: (sae.encode(h) > 0).sum(1))
        cost = {"core_seconds": time.process_time() - self.began}
        if not self.trainer.is_global_zero or self.trainer.interrupted:
            return
        for i, site in enumerate(self.backbone.sites):
            site_sae = without(SparseAutoencoder._make(x[i] for x in sae), active[i] < LEAST)
            record = {provenance.KEY: replace(self.provenance, sites=[site]).as_json()}
            save_sparse_autoencoder(SparseAutoencoder._make(x.cpu() for x in site_sae), self._folder() / site, record)
            write_json(self._folder() / site / "cost.json", cost)

    def _folder(self) -> Path:
        saver = self.trainer.checkpoint_callback
        default = (
            saver.dirpath if isinstance(saver, ModelCheckpoint) and saver.dirpath else self.trainer.default_root_dir
        )
        return Path(self.folder or default)

    # ---- score other rows

    def on_validation_epoch_start(self) -> None:
        self.scored.reset()
        self.judged = unscaled(self.scaled, self.centre, self.scale)

    def validation_step(self, batch: Any, _batch_idx: int) -> None:
        h = self._rows(batch)
        z = self.judged.encode(h)
        lost, spread = (h - self.judged.decode(z)).square().sum(-1), (h - self.centre).square().sum(-1)
        self.scored.update(batch.row, lost=lost.T, spread=spread.T, active=(z > 0).sum(-1).T)

    def on_validation_epoch_end(self) -> None:
        rows = self.scored.compute()
        lost = rows["lost"].sum(0) / rows["spread"].sum(0)
        self.log("val/loss", lost.mean(), prog_bar=True)
        self.log("val/active", rows["active"].double().mean())

    # ---- test: report

    def on_test_epoch_start(self) -> None:
        """Read the autoencoders that fit wrote."""
        self.scored.reset()
        sites, width = self.backbone.sites, self.backbone.width(self.backbone.sites[0])
        for site in sites:
            if not (self._folder() / site).is_dir():
                raise FileNotFoundError(f"there is no sparse autoencoder in {self._folder() / site}: run fit first")
        whole_provenance = self.provenance
        for site in sites:
            self.provenance, folder = replace(whole_provenance, sites=[site]), self._folder() / site
            self.accept(folder, read_metadata(folder).get(provenance.KEY))
        self.provenance = whole_provenance
        autoencoders = [read_sparse_autoencoder(self._folder() / site, width) for site in sites]
        self.judged = SparseAutoencoder._make(torch.stack(x).to(self.device) for x in zip(*autoencoders, strict=True))
        self.on = (self.judged.W_enc != 0).any(-2).sum(-1).tolist()
        if not self.scale.any():  # in a separate run, compute the centre of the variance
            count = self._over_training(lambda h: torch.tensor(h.shape[1], device=h.device))
            self.centre = (self._over_training(lambda h: h.double().sum(1, keepdim=True)) / count).to(self.centre)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Score held-out rows; the training rows that follow are not tested."""
        if dataloader_idx == 0:
            self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        rows = {name: as_numbers(column) for name, column in self.scored.compute().items()}
        data = data_of(self.trainer, ActivationsDataModule)
        table: dict[str, dict[str, dict[str, Any]]] = {}
        for i, site in enumerate(self.backbone.sites):
            share = LOST.estimate(rows["lost"][:, i], rows["spread"][:, i])[0]
            active = Mean(0, self.features * self.centre.shape[-1]).estimate(rows["active"][:, i])[0]
            table[site] = {"variance_lost": share._asdict(), "active_features": active._asdict()}
        folder = Path(self.trainer.log_dir or self.trainer.default_root_dir)
        seconds = json.loads((self._folder() / self.backbone.sites[0] / "cost.json").read_text())["core_seconds"]
        self.results = {
            "experiment": folder.parent.name,
            "task": data.task or "activations",
            "backbone": self.backbone.name,
            "method": type(self).__name__,
            "seed": self.seed,
            "metrics": table[self.backbone.sites[-1]],
            "layers": table,
            "features_on": self.on,
            "mismatches": self.mismatches,
            "warnings": self.caveats,
            "core_seconds": seconds,
        }
        self.log_dict({f"test/{name}": estimate["value"] for name, estimate in self.results["metrics"].items()})
        if self.trainer.is_global_zero:
            total, on = self.features * self.centre.shape[-1], dict(zip(table, self.on, strict=True))
            rows_by_site = {f"{site} ({on[site]} of {total} features on)": figures for site, figures in table.items()}
            head = f"# Sparse autoencoders of {self.backbone.name}: {self.results['task']}\n\n"
            head += f"Held-out rows. Training took {seconds:.1f} core seconds for all sites together.\n\n"
            head += "".join(f"> **Warning.** {sentence}\n\n" for sentence in self.results["warnings"])
            write_text(folder / "report.md", head + markdown(rows_by_site, list(self.results["metrics"])))
            write_json(folder / "report.json", self.results)
