"""Probes of a network's own error: all layers and penalties together, in one pass over the training rows.

One file: Lightning calls a module's methods in turn, and fit and test share the sums, the rows and the scores.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_steer.data import readable
from lightning_steer.data.base import data_of
from lightning_steer.data.mera.generated_backbone import GeneratedAnswerBackbone
from lightning_steer.data.mera.module import MERADataModule
from lightning_steer.errors import UserError
from lightning_steer.metrics.columns import as_numbers
from lightning_steer.metrics.evaluation import Evaluation
from lightning_steer.metrics.probe_scores import AUC, R2, RMSE
from lightning_steer.metrics.table import Table
from lightning_steer.modules import fit_data
from lightning_steer.networks.backbone import Backbone
from lightning_steer.numbers import ranged
from lightning_steer.probes.error_probe import logit_error
from lightning_steer.probes.logistic_regression import logistic
from lightning_steer.probes.moments import Moments
from lightning_steer.probes.normal_equations import Fit
from lightning_steer.probes.probe_selection import PENALTIES, select
from lightning_steer.report.files import write_json, write_text
from lightning_steer.report.tables import markdown
from lightning_steer.runs import provenance
from lightning_steer.runs.traced import TracedModule
from lightning_steer.statistics.estimate import Estimate


class ErrorProbe(TracedModule):
    """Linear probes of logit(error), and of right or wrong, at every site of a frozen network.

    Training accumulates float64 moments of the activations, one set for each fold. Then the penalties are
    cross-validated within the training rows, and the chosen one is fitted to all of them. Validation and test score
    other rows. Nothing is optimised, and results do not depend on the number of processes.

    Args:
        backbone: the frozen network, its layers and the tokens to read.
        evaluation: grades the network's answers.
        penalties: of the lasso, on standardised features; 0 for least squares.
        logistic_penalties: of logistic probes of right or wrong, which need all rows in memory; empty for none. The
            middle one is reported.
        sparse: penalise the logistic probes' L1 norm, else the squared L2 norm.
        folds: of the cross-validation.
    """

    @ranged
    def __init__(
        self,
        backbone: Backbone,
        evaluation: Evaluation,
        penalties: Sequence[float] = PENALTIES,
        logistic_penalties: Sequence[float] = (),
        sparse: bool = True,
        folds: int = 5,
    ) -> None:
        super().__init__()
        if folds < 2 or not penalties:
            raise UserError(f"there must be at least 2 folds and 1 penalty, not {folds} and {list(penalties)}")
        self.backbone, self.evaluation = backbone, evaluation
        self.penalties, self.folds = list(penalties), folds
        self.logistic_penalties, self.sparse = list(logistic_penalties), sparse
        self.strict_loading = False  # the frozen network is not part of a checkpoint
        self.nothing = nn.Parameter(torch.zeros(()))  # strategies reject a module without trainable parameters
        self.weight: Tensor
        self.intercept: Tensor
        for name in ("weight", "intercept", "best", "score", "mean"):
            self.register_buffer(name, None)
        self.moments: Moments | None = None
        self.kept, self.scored = Table(), Table()

    def configure_model(self) -> None:
        """Load the frozen network; called by the trainer."""
        if self.weight is not None:
            return
        self.evaluation.check_subject(data_of(self.trainer, MERADataModule))
        self.backbone.check(data_of(self.trainer, MERADataModule))
        self.backbone.load()
        readable.read_all(data_of(self.trainer, MERADataModule), self.backbone)
        self.backbone = GeneratedAnswerBackbone.if_asked(self.backbone, data_of(self.trainer, MERADataModule))
        self.backbone.requires_grad_(False).eval()
        settings = {name: getattr(self, name) for name in ("penalties", "logistic_penalties", "sparse", "folds")}
        data = data_of(self.trainer, MERADataModule)
        self.trace(provenance.of(self.backbone, type(self).__name__, settings, data))
        sites, width = len(self.backbone.sites), self.backbone.width(self.backbone.sites[0])
        kinds = 1 + bool(self.logistic_penalties)  # the chosen regression probe and the logistic one
        self.weight = torch.zeros(kinds, sites, width, dtype=torch.float64)
        self.intercept = torch.zeros(kinds, sites, dtype=torch.float64)
        self.best = torch.zeros(sites, dtype=torch.int64)
        self.score, self.mean = torch.full((sites,), torch.nan, dtype=torch.float64), torch.zeros(1).double()

    @torch.no_grad()
    def _observe(self, batch: Any) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return ``h [sites, B, d]``, ``error [B]``, and all columns ``[B]`` of the evaluation, with ``wrong``."""
        scores, h = fit_data.observe(self.backbone, batch)
        rows = {name: x[0] for name, x in self.evaluation.rows(scores, scores.unsqueeze(0), batch).items()}
        error, rows["wrong"] = self.evaluation.error(scores, batch), rows[self.evaluation.success] < 0.5
        return torch.stack([h[s] for s in self.backbone.sites]), error, rows

    # ---- fit: sums, then closed forms

    def on_train_epoch_start(self) -> None:
        self.moments = None
        self.kept.reset()

    def training_step(self, batch: Any, _batch_idx: int) -> Tensor:
        if len(batch.row):
            h, error, rows = self._observe(batch)
            target = logit_error(error)
            if self.moments is None:
                self.moments = Moments.like(h, target, self.folds)
            self.moments.add(h, target, batch.row % self.folds)
            if self.logistic_penalties:
                self.kept.update(batch.row, h=h.transpose(0, 1), wrong=rows["wrong"])
        return 0 * self.nothing

    def configure_optimizers(self) -> None:
        return None

    def on_validation_epoch_start(self) -> None:
        """Solve the probes: Lightning validates before the training epoch ends."""
        self.scored.reset()
        if self.trainer.state.fn != "fit" or self.trainer.sanity_checking:
            return
        moments = self._of_all_processes()
        selected = select(moments, self.penalties)
        self.best, self.score = selected.best.to(self.device), selected.score.to(self.device)
        fits = [selected.chosen]
        if self.logistic_penalties:
            rows = self.kept.compute()
            fit = logistic(rows["h"].transpose(0, 1), rows["wrong"].bool(), self.logistic_penalties, self.sparse)
            middle = len(self.logistic_penalties) // 2
            fits.append(Fit(fit.weight[:, middle], fit.intercept[:, middle]))
        self.weight, self.intercept = (torch.stack(x).to(self.device) for x in zip(*fits, strict=True))
        total = moments.over([range(self.folds)])
        self.mean = (total.t + total.y[0] / total.count[0])[:1].to(self.device)
        self.worst_gap = float(selected.gap.max())

    def _of_all_processes(self) -> Moments:
        if self.moments is None:
            raise UserError("this process saw no training row: give it more rows than there are processes")
        if self.trainer.world_size == 1:
            return self.moments
        shift = self.trainer.strategy.broadcast((self.moments.s, self.moments.t))
        moments = self.moments.moved(*(x.to(self.moments.s.device) for x in shift))
        for total in moments.sums:
            torch.distributed.all_reduce(total)
        return moments

    # ---- score other rows

    def validation_step(self, batch: Any, _batch_idx: int) -> None:
        h, error, rows = self._observe(batch)
        predicted = torch.einsum("ksd,sbd->bks", self.weight, h.double()) + self.intercept
        self.scored.update(batch.row, predicted=predicted, target=logit_error(error), **rows)

    def on_validation_epoch_end(self) -> None:
        estimates, layer = self._scores(), int(self.score.nan_to_num(-torch.inf).argmax())
        for name in ("r2", "rmse", "auc"):
            self.log(f"val/{name}", estimates[name][layer].value)
        self.log("val/loss", estimates["rmse"][layer].value, prog_bar=True)

    def _scores(self) -> dict[str, list[Estimate]]:
        """Return the estimates of each site on the scored rows."""
        rows = {name: as_numbers(column) for name, column in self.scored.compute().items()}
        estimates: dict[str, list[Estimate]] = {}
        dummy = np.full(len(rows["target"]), float(self.mean))
        for site in range(rows["predicted"].shape[-1]):
            predicted = rows["predicted"][:, 0, site]
            estimates.setdefault("r2", []).extend(R2.estimate(predicted, rows["target"]))
            estimates.setdefault("rmse", []).extend(RMSE.estimate(predicted, rows["target"]))
            estimates.setdefault("auc", []).extend(AUC.estimate(predicted, rows["wrong"]))
            if self.logistic_penalties:
                logistic_scores = rows["predicted"][:, 1, site]
                estimates.setdefault("auc_logistic", []).extend(AUC.estimate(logistic_scores, rows["wrong"]))
        estimates["r2_dummy"], estimates["rmse_dummy"] = (kind.estimate(dummy, rows["target"]) for kind in (R2, RMSE))
        return estimates

    # ---- test: report

    def on_test_epoch_start(self) -> None:
        """Clear the rows that validation scored."""
        self.scored.reset()

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Score held-out rows; the training rows that follow are not tested."""
        if dataloader_idx == 0:
            self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        estimates, layer = self._scores(), int(self.score.nan_to_num(-torch.inf).argmax())
        used = (self.weight[0] != 0).sum(-1).tolist()
        penalties = [self.penalties[int(i)] for i in self.best]
        metrics = {name: e[min(layer, len(e) - 1)]._asdict() for name, e in estimates.items()}
        metrics |= fit_data.no_label(data_of(self.trainer, MERADataModule), self.scored.compute(), no_label="answer")
        data, sites = data_of(self.trainer, MERADataModule), self.backbone.sites
        folder = Path(self.trainer.log_dir or self.trainer.default_root_dir)
        curve = {name: [e._asdict() for e in values] for name, values in estimates.items() if len(values) == len(sites)}
        self.results = {
            "experiment": folder.parent.name,
            "task": data.task,
            "backbone": self.backbone.name,
            "method": f"ErrorProbe at {sites[layer]}",
            "seed": data.seed,
            "metrics": metrics,
            "mismatches": self.mismatches,
            "warnings": [*self.caveats, *readable.notes(data)],
            "layers": {"site": sites, "penalty": penalties, "features": used, "cv_r2": self.score.tolist(), **curve},
        }
        self.log_dict({f"test/{name}": estimate["value"] for name, estimate in metrics.items()})
        if self.trainer.is_global_zero:
            rows = {
                f"{site} (penalty {penalty:g}, {count} features)": {name: values[i] for name, values in curve.items()}
                for i, (site, penalty, count) in enumerate(zip(sites, penalties, used, strict=True))
            }
            rows["the training rows' mean"] = {"r2": metrics["r2_dummy"], "rmse": metrics["rmse_dummy"]}
            head = f"# Probes of the error of {self.backbone.name}: {data.task}\n\n"
            head += f"Chosen by cross-validation in the training rows: {sites[layer]}.\n\n"
            head += "".join(f"> **Warning.** {sentence}\n\n" for sentence in self.results["warnings"])
            write_text(folder / "report.md", head + markdown(rows, list(curve)))
            write_json(folder / "report.json", self.results)
