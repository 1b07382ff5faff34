"""The steering adaptor: fit a method on training pairs, choose its strength on others, report on held-out rows.

Only here a task, a network and a method meet. One file: Lightning calls a module's methods in turn, and
the reader sees which values fit, choice and test share.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.image import imread
from torch import Tensor, nn

from lightning_steer import files, numbers
from lightning_steer.data import readable
from lightning_steer.data.base import SteeringBatch, SteeringDataModule, data_of
from lightning_steer.data.mera.generated_backbone import GeneratedAnswerBackbone
from lightning_steer.errors import UserError
from lightning_steer.lm.language_model import LLM
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.metrics.evaluation import Evaluation
from lightning_steer.metrics.table import Table
from lightning_steer.modules import (
    cautions,
    composition,
    damage,
    fit_data,
    gates,
    interventions,
    outcome_rows,
    parts,
    written,
)
from lightning_steer.modules.identity import identify
from lightning_steer.modules.summary import Summary
from lightning_steer.networks.backbone import Backbone
from lightning_steer.numbers import ranged
from lightning_steer.report import card
from lightning_steer.runs import provenance
from lightning_steer.runs.traced import TracedModule
from lightning_steer.selection.rule import Best, Selection


class SteeringAdaptor(TracedModule):
    """A steering method on a frozen network, from fitting to a report.

    Training learns the map: closed forms collect activations and are solved at the end of the epoch, trained methods
    are optimised through the network's output. Validation runs all strengths in one pass and chooses one, or none. The
    test compares with the unsteered network, random directions of equal norm, the site replaced by its mean and, where
    the data tell the positive of each row, the oracle patch; and writes the report.

    Args:
        backbone: the frozen network and the sites to steer.
        method: the steering method, such as MeanDifference; fitted separately for each steered layer.
        evaluation: what the task asks of the steered network.
        strengths: the strengths to try, from the weakest effect to the strongest, in the method's own units: 1 adds a
            mean difference once.
        selection: how one of them is chosen; null for the best on the validation rows.
        learning_rate: Adam's, for methods that are trained through the output.
        random_draws: random directions in the control, each as long as the method's own mean displacement.
        random_curve: how many of them are tried at every strength, for the band of the dose-response; 0 for none.
        learning_curve: test closed forms fitted to 1, 2, 4, ... rows too.
        resamples: bootstrap resamples behind the range of the chosen strength.
    """

    @ranged
    def __init__(
        self,
        backbone: Backbone,
        method: Callable[[int], SteeringMethod],
        evaluation: Evaluation,
        strengths: Sequence[float] = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0),
        selection: Selection | None = None,
        learning_rate: float = 1e-2,
        random_draws: int = 20,
        random_curve: int = 5,
        learning_curve: bool = True,
        resamples: int = 2000,
    ) -> None:
        super().__init__()
        if not strengths:
            raise UserError("strengths is empty: give at least one to choose from")
        numbers.distinct("strengths", strengths)  # a certificate splits its risk among all of them
        self.backbone, self.method, self.evaluation = backbone, method, evaluation
        self.strengths, self.learning_rate = list(strengths), learning_rate
        self.selection, self.reason = selection or Best(resamples), ""
        self.clusters: int | None = None  # number of clusters behind a certificate
        self.experiment = ""  # the report's; empty for the name of the folder above the run's
        self.random_draws, self.random_curve = random_draws, min(random_curve, random_draws)
        self.learning_curve = learning_curve
        self.maps = nn.ModuleList()  # one for every site, made once the network is loaded
        self.strict_loading = False  # the frozen network is not part of a checkpoint
        # the chosen strength, its interval over resamplings of the selection rows, their number, and the certified
        # improvement
        self.choice: Tensor
        self.register_buffer("choice", torch.full((5,), torch.nan, dtype=torch.float64))
        # distributed strategies reject a module without trainable parameters, and a step without a loss: closed forms
        # use this dummy
        self.nothing = nn.Parameter(torch.zeros(()))
        self.seen, self.swept, self.tested, self.relearned = Table(), Table(), Table(), Table()

    def configure_model(self) -> None:
        """Load the frozen network and make one unfitted method for every site; called by the trainer."""
        if len(self.maps):
            return
        data = data_of(self.trainer, SteeringDataModule)
        self.evaluation.check_subject(data)
        self.backbone.check(data)
        self.backbone.load()
        readable.read_all(data, self.backbone)
        self.backbone = GeneratedAnswerBackbone.if_asked(self.backbone, data_of(self.trainer, SteeringDataModule))
        self.backbone.requires_grad_(False).eval()
        self.maps.extend(self.method(self.backbone.width(site)) for site in self.backbone.sites)
        self._check_strengths()
        first = cast(SteeringMethod, self.maps[0])
        self.trace(provenance.of(self.backbone, type(first).__name__, provenance.settings_of(first), data))
        if self.trained:  # their parameters must exist before there is an optimizer
            self.nothing.requires_grad_(False)
            for method in self.methods.values():
                method.fit(fit_data.no_rows(method))

    def _check_strengths(self) -> None:
        method = cast(SteeringMethod, self.maps[0])
        low, high = method.strength_range
        for strength in self.strengths:
            if not low <= strength <= high:
                raise UserError(
                    f"strengths of {type(method).__name__} lie between {low:g} and {high:g}, not at {strength:g}: set "
                    "model.init_args.strengths"
                )

    @property
    def trained(self) -> bool:
        """Whether the method is optimised through the output."""
        return cast(SteeringMethod, self.maps[0]).trained

    @property
    def methods(self) -> dict[str, SteeringMethod]:
        """The methods by site."""
        return dict(zip(self.backbone.sites, cast(Iterable[SteeringMethod], self.maps), strict=True))

    @property
    def strength(self) -> float:
        """The chosen strength; raises UserError before it is chosen."""
        if self.choice[0].isnan():
            raise UserError("no strength was chosen yet: run fit first, or give the checkpoint that it wrote")
        return float(self.choice[0])

    def _scores(self, inputs: Any, groups: list[interventions.Interventions]) -> Tensor:
        edits, copies = interventions.together(groups, self.backbone.sites)
        return self.backbone.scores(inputs, edits, copies)

    # ---- fit: learn the map

    def on_train_epoch_start(self) -> None:
        self.seen.reset()

    def training_step(self, batch: SteeringBatch, _batch_idx: int) -> Tensor:
        if not self.trained:
            self._collect(self.seen, batch)
            return 0 * self.nothing
        scores = self._scores(batch.x, [interventions.steered("", self.methods, [1.0])])
        loss = self.evaluation.loss(scores, batch)
        loss = loss.sum() / max(loss.numel(), 1)  # a process may get no row of this batch
        self.log("train/loss", loss, batch_size=len(batch.row))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer | None:
        return torch.optim.Adam(self.maps.parameters(), lr=self.learning_rate) if self.trained else None

    @torch.no_grad()
    def _collect(self, table: Table, batch: SteeringBatch) -> None:
        gates.check(self.methods, self.backbone, batch)
        sensitivity = cast(SteeringMethod, self.maps[0]).needs_sensitivity
        table.update(batch.row, **fit_data.read(self.backbone, self.evaluation, batch, sensitivity))

    def _fit(self, maps: dict[str, SteeringMethod], columns: dict[str, Tensor], rows: int) -> None:
        """Fit every site's method to the first rows, the same ones in every process."""
        paired = bool(data_of(self.trainer, SteeringDataModule).paired)
        for site, method in maps.items():
            method.fit(fit_data.activations(columns, site, rows, paired, self.backbone.heads(site)))

    # ---- validate: choose the strength

    def on_validation_epoch_start(self) -> None:
        self.swept.reset()
        # Lightning validates before the training epoch ends, so the method is solved here
        if self.trainer.state.fn == "fit" and not self.trained and not self.trainer.sanity_checking:
            columns = self.seen.compute()
            self._fit(self.methods, columns, len(columns["error"]))

    def validation_step(self, batch: SteeringBatch, _batch_idx: int) -> None:
        base = self.backbone.scores(batch.x)
        scores = torch.cat([base, self._scores(batch.x, [interventions.steered("", self.methods, self.strengths)])])
        success = self.evaluation.rows(base[0], scores, batch)[self.evaluation.success]
        loss = self.evaluation.loss(scores, batch)
        self.swept.update(batch.row, success=success.T, loss=loss.T, cluster=batch.cluster)

    def on_validation_epoch_end(self) -> None:
        swept = self.swept.compute()
        success, loss = swept["success"].cpu(), swept["loss"].cpu()  # the unsteered network comes first
        compared, cluster = (success[:, 0], success[:, 1:], loss[:, 1:]), swept["cluster"].cpu().reshape(-1)
        choice = self.selection.choose(self.strengths, *compared, self.evaluation.change, cluster)
        best = 0 if choice.index is None else 1 + choice.index
        strength = [cast(SteeringMethod, self.maps[0]).identity_strength, *self.strengths][best]
        if self.trainer.state.fn == "fit":
            self.choice.copy_(torch.tensor([strength, choice.low, choice.high, len(loss), choice.bound]))
            self.reason, self.clusters = choice.reason, choice.clusters
        self.log("val/loss", loss[:, best].mean(), prog_bar=True)
        self.log(f"val/{self.evaluation.success}", success[:, best].mean(), prog_bar=True)
        self.log("val/strength", strength)

    # ---- test: report

    @torch.no_grad()
    def on_test_start(self) -> None:
        """Prepare the controls from the training rows: their mean, the displacement's length, smaller fits."""
        training, fitted, selection = (Table().to(self.device) for _ in range(3))
        for batch in self.training_batches():
            batch = self.transfer_batch_to_device(batch, self.device, 0)
            self._collect(training, batch)
            fitted.update(batch.row, **parts.columns(batch))
        for batch in self.selection_batches():
            batch = self.transfer_batch_to_device(batch, self.device, 0)
            selection.update(batch.row, **parts.columns(batch))
        self.used = {parts.FITTED: fitted.compute(), parts.SELECTION: selection.compute()}
        columns = training.compute()
        site_means, self.pushes, pushes_by_strength = {}, {}, {}
        for site, method in self.methods.items():
            h = columns[f"h/{site}"][:, 0]
            site_means[site] = h.mean(0)
            length = (method(h, self.strength) - h).norm(dim=-1).mean()
            u = torch.randn(self.random_draws, h.shape[-1], generator=torch.Generator().manual_seed(0)).to(h)
            u = u / u.norm(dim=-1, keepdim=True)
            self.pushes[site] = length * u
            lengths = [(method(h, strength) - h).norm(dim=-1).mean() for strength in self.strengths]
            pushes_by_strength[site] = torch.cat([length * u[: self.random_curve] for length in lengths])
        row_count = len(columns["error"])
        no_curve = self.trained or not self.learning_curve
        self.sizes = [] if no_curve else sorted({min(2**k, row_count) for k in range(row_count.bit_length() + 1)})
        family = [copy.deepcopy(self.methods) for _ in self.sizes]
        for size, maps in zip(self.sizes, family, strict=True):
            self._fit(maps, columns, size)
        self.groups = [
            interventions.unsteered(),
            interventions.steered("steered", self.methods, [self.strength]),
            interventions.shifted("random_control", self.pushes),
            interventions.replaced("mean_ablation", site_means),
            interventions.steered("strength", self.methods, self.strengths),
            *([interventions.shifted("random_strength", pushes_by_strength)] if self.random_curve else []),
            *interventions.parts(self.methods, self.strength),
            *([interventions.refitted("pairs", family, self.strength)] if family else []),
        ]
        self.tested.reset()
        self.relearned.reset()

    def test_step(self, batch: SteeringBatch, _batch_idx: int, dataloader_idx: int = 0) -> None:
        """Test held-out rows (first loader), then rows that the method was fitted to."""
        groups = self.groups
        columns = parts.columns(batch)
        if batch.moved is batch.x:
            base, before = self.backbone.observe(batch.x)
        else:  # the inputs that the method was fitted to are moved
            base, before = self.backbone.scores(batch.x)[0], self.backbone.activations(batch.moved)
        for site, method in self.methods.items():
            columns[f"moved/{site}"] = method(before[site], self.strength) - before[site]
        if batch.known_positive is not None:
            reached, positive = self.backbone.observe(batch.known_positive)
            groups = [*groups, interventions.replaced("oracle_patch", positive)]
            effect = self.evaluation.rows(base, reached.unsqueeze(0), batch)
            columns |= {f"positive_input/{name}": column.T for name, column in effect.items()}
            columns |= {f"truth/{site}": positive[site] - before[site] for site in positive}
        scores = self._scores(batch.x, groups)
        for name, column in self.evaluation.rows(base, scores, batch).items():
            by_group = column.T.split([group.copies for group in groups], 1)
            columns |= {f"{group.name}/{name}": values for group, values in zip(groups, by_group, strict=True)}
        columns |= {
            f"profile/{name}": values for name, values in self.evaluation.profile(base, scores[1], batch).items()
        }
        (self.relearned if dataloader_idx else self.tested).update(batch.row, **columns)

    def on_test_epoch_end(self) -> None:
        data, method = data_of(self.trainer, SteeringDataModule), cast(SteeringMethod, self.maps[0])
        axes = {"strength": self.strengths, "pairs": [float(size) for size in self.sizes]}
        summary = Summary(
            self.tested.compute(),
            self.relearned.compute(),
            self.evaluation,
            axes,
            self.selection.searched,
            method.identity_strength,
        )
        self.folder = Path(self.trainer.log_dir or self.trainer.default_root_dir)
        self.report = {
            **identify(self.experiment or self.folder.parent.name, data.task, self.backbone.name, method),
            **summary.report(self.choice.tolist(), self.reason, self.backbone.sites, self.clusters),
            "searched": self.selection.searched,
            "place": self.backbone.place,
        }
        if by_group := summary.by_group(data.held_out_groups):
            self.report["groups"] = {"by": data.grouped_by, "rows": by_group}
        self.report["random_curve"] = self.random_curve
        if self.selection.budget is not None:
            self.report["budget"] = self.selection.budget
        self.report["data"] = parts.described({**self.used, parts.HELD_OUT: summary.tested})
        self.report["result"] = self.result
        self.report["mismatches"] = self.mismatches
        self.report["metrics"] |= gates.figures(self.methods)
        self.report["metrics"] |= composition.interactions(summary.tested, self.evaluation)
        self.outcomes = outcome_rows.packed(summary.tested, self.evaluation, self.strengths, method.identity_strength)
        self.report["warnings"] = [
            *self.caveats,
            *gates.warnings(self.methods),
            *readable.notes(data),
            *self.report["warnings"],
            *cautions.old_continuations(self.report["data"]),
            *cautions.at_the_edge(self.strength, self.strengths, method.strength_range),
            *cautions.few_to_choose_on(
                self.report["data"][parts.SELECTION], "certified_bound" in self.report["metrics"]
            ),
        ]
        answer_columns = {"no_label": "steered/answer", "no_label_base": "baseline/answer"}
        self.report["metrics"] |= fit_data.no_label(data, summary.tested, **answer_columns)
        if texts := data.reference_texts:
            damage.add_to(
                self.report, cast(LLM, self.backbone), texts, self.groups, self.strengths, method.identity_strength
            )
        steering = {site: partial(method, strength=self.strength) for site, method in self.methods.items()}
        written.add_to(self.report, data, self.backbone, steering)
        if data.reference_texts is not None:
            self.report["warnings"] = [*cautions.damage(self.report["metrics"]), *self.report["warnings"]]
        self.log_dict({f"test/{name}": estimate["value"] for name, estimate in self.report["metrics"].items()})

    def on_test_end(self) -> None:
        """Write the report into the run's log folder, and add it to TensorBoard."""
        if not self.trainer.is_global_zero:
            return
        figures = card.write(self.folder, self.report)
        files.write(self.folder / outcome_rows.NAME, self.outcomes)
        if isinstance(self.logger, TensorBoardLogger):
            for name in figures:  # reading the report's figures costs less than drawing them again
                image = imread(self.folder / f"{name}.png")
                self.logger.experiment.add_image(name, image, dataformats="HWC")
            settings = {key: self.report[key] for key in ("task", "backbone", "method", "seed")}
            measured = {f"test/{name}": estimate["value"] for name, estimate in self.report["metrics"].items()}
            self.logger.log_hyperparams(settings, measured)

    def predict_step(self, batch: SteeringBatch, _batch_idx: int) -> Tensor:
        """Return log-probabilities ``[B, ..., options]`` of the network steered at the chosen strength."""
        return self._scores(batch.x, [interventions.steered("", self.methods, [self.strength])])[0]

    # ---- checkpoints

    def learned(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return what was learned: the methods and the choice, not the frozen network."""
        return {key: value for key, value in state.items() if key.startswith(("maps.", "choice"))}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the reason for the chosen strength too."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["reason"], checkpoint["clusters"] = self.reason, self.clusters

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Read the reason for the chosen strength too."""
        super().on_load_checkpoint(checkpoint)
        self.reason, self.clusters = checkpoint.get("reason", ""), checkpoint.get("clusters")
