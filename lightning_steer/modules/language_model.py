"""Causal language-model training: any Hugging Face decoder, from random or trained weights."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from lightning_steer import checkpoint, numbers
from lightning_steer.cache import fingerprints
from lightning_steer.data.base import data_of
from lightning_steer.data.text import TextDataModule
from lightning_steer.data.tokens import IGNORED, TextBatch
from lightning_steer.errors import UserError
from lightning_steer.files import check_regular, folder_aside
from lightning_steer.lm.loading import load
from lightning_steer.modules.fsdp import spread
from lightning_steer.numbers import ranged
from lightning_steer.runs.provenance import of_training, precision
from lightning_steer.runs.traced import TracedModule

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LanguageModel(TracedModule):
    """A decoder that learns to predict the next token of the data module's texts.

    After ``fit``, ``folder`` holds the weights of the best checkpoint with config and tokenizer, in Hugging Face's
    format: ``AutoModelForCausalLM`` and ``AutoTokenizer`` load them, and so does everything else here.

    Args:
        llm: local folder or hub name of a model to go on from; null starts from random weights.
        architecture: for random weights, the Hugging Face configuration: ``model_type`` and whatever that takes. The
            vocabulary and the special tokens are those of the data's tokenizer.
        folder: where the result goes; null is the folder of the checkpoint.
        learning_rate: peak of AdamW's learning rate.
        warm_up: steps of linear rise to the peak.
        flat: share of the steps until which the rate stays there; then it falls along a cosine.
        floor: share of the peak at the last step.
        betas: AdamW's decay rates.
        weight_decay: AdamW's decoupled decay, of matrices only: norms and biases are left alone.
    """

    during_training: Mapping[str, Any] = {}
    """What a callback adds in training steps alone (preventive steering), for the record of what was fitted."""

    @ranged
    def __init__(
        self,
        llm: str | None = None,
        architecture: dict[str, Any] | None = None,
        folder: str | None = None,
        learning_rate: float = 1e-3,
        warm_up: int = 60,
        flat: float = 0.3,
        floor: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.98),
        weight_decay: float = 0.1,
    ) -> None:
        super().__init__()
        if (llm is None) == (architecture is None):
            raise UserError("give either llm, a model to go on from, or architecture, for random weights")
        if architecture is not None and "model_type" not in architecture:
            raise UserError(f"architecture needs a model_type, for example llama; it has {', '.join(architecture)}")
        if not (learning_rate > 0 and warm_up >= 0 and 0 <= flat <= 1 and 0 <= floor <= 1):
            raise UserError(
                "learning_rate must be positive, warm_up not negative, flat and floor in [0, 1], "
                f"not {learning_rate}, {warm_up}, {flat} and {floor}"
            )
        self.llm, self.architecture, self.folder = llm, architecture, folder
        self.learning_rate, self.warm_up, self.flat, self.floor = learning_rate, warm_up, flat, floor
        self.betas, self.weight_decay = betas, weight_decay

    # ---- the network

    @property
    def tokenizer(self) -> Any:
        """The data module's tokenizer."""
        return data_of(self.trainer, TextDataModule).tokenizer

    def configure_model(self) -> None:
        """Build or load the network; called by the trainer, on the right device."""
        if hasattr(self, "network"):
            return
        data = data_of(self.trainer, TextDataModule)
        if getattr(data, "tokenizer", None) is None:
            raise UserError(f"a language model learns from texts, and a {type(data).__name__} has no tokenizer")
        if self.architecture is not None:
            from transformers import AutoConfig, AutoModelForCausalLM

            tokens = {name: getattr(self.tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
            token_ids = {f"{name}_token_id": token for name, token in tokens.items()}
            settings = {"vocab_size": len(self.tokenizer), **token_ids, **self.architecture}
            try:
                config = AutoConfig.for_model(**settings)
                with torch.device("meta"):  # its size, before any memory is allocated
                    meta_model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
                numbers.fits("its weights", sum(weight.numel() for weight in meta_model.parameters()), 4)
                self.network: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            except Exception as error:  # a family's code raises various types for sizes that do not match
                reason = " ".join(str(error).split())[:200]
                raise UserError(f"no model can be built of the architecture {self.architecture} ({reason})") from error
        else:
            self.network = load(str(self.llm), "float32")[0].requires_grad_(True)
        rows = cast(nn.Embedding, self.network.get_input_embeddings()).num_embeddings
        if rows < len(self.tokenizer):
            raise UserError(
                f"the tokenizer has {len(self.tokenizer)} tokens, but the model embeds only {rows}: give the data "
                "module the model's own tokenizer"
            )
        weights = None if self.llm is None else fingerprints.of_memory(self.network)
        network = {"model": self.llm or "random weights", "weights": weights, "precision": precision(self.network)}
        network |= {"configuration": fingerprints.of_configuration(self.network.config)}
        network |= {"tokenizer": fingerprints.of_tokenizer(self.tokenizer)}
        self.trace(of_training(network, type(self).__name__, self.during_training, data))
        self.network.train()
        spread(self.network, self.trainer.strategy, self.trainer.world_size)

    def forward(self, ids: Tensor) -> Tensor:
        """Map ``ids [B, T] -> logits [B, T, vocabulary]``; right padding needs no mask, since attention is causal."""
        return self.network(input_ids=ids, use_cache=False).logits

    def nats(self, batch: TextBatch) -> Tensor:
        """Return the summed negative log-probability ``[B]`` of each row's labels."""
        if not len(batch.ids):  # a process may get no row; where weights are sharded, the others need its share
            return self(batch.ids.new_zeros(1, 1)).flatten()[:0]
        logits, labels = self(batch.ids), nn.functional.pad(batch.labels[:, 1:], (0, 1), value=IGNORED)
        # the vocabulary is the last dimension, which makes it fast
        logits = logits.flatten(0, 1).float()
        token_nats = nn.functional.cross_entropy(logits, labels.flatten(), ignore_index=IGNORED, reduction="none")
        return token_nats.view_as(labels).sum(-1)

    # ---- the loops

    def training_step(self, batch: TextBatch, _batch_idx: int) -> Tensor:
        """Return nats per token of the whole batch: processes average gradients, so each multiplies its share."""
        loss = self.nats(batch).sum() * self.trainer.world_size / batch.total
        if len(batch.ids):
            self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.ids))
        return loss

    def on_validation_epoch_start(self) -> None:
        # no buffer: a run in half precision would halve it too
        self.sums = torch.zeros(3, dtype=torch.float64, device=self.device)

    def validation_step(self, batch: TextBatch, _batch_idx: int) -> None:
        nats = self.nats(batch).double().sum()
        self.sums += torch.stack([nats, (batch.labels != IGNORED).sum(), -batch.logp.sum()])

    def on_validation_epoch_end(self) -> None:
        """Log the loss in nats per token, and its gap to the entropy if the data know it."""
        nats, tokens, entropy = self.trainer.strategy.reduce(self.sums, reduce_op="sum").tolist()
        step = "test" if self.trainer.testing else "val"
        self.log(f"{step}/loss", nats / tokens, prog_bar=True)
        if not math.isnan(entropy):
            self.log(f"{step}/gap", (nats - entropy) / tokens, prog_bar=True)

    on_test_epoch_start, test_step, on_test_epoch_end = (
        on_validation_epoch_start,
        validation_step,
        on_validation_epoch_end,
    )

    def predict_step(self, batch: TextBatch, _batch_idx: int) -> Tensor:
        """Return the log-probability ``[B]`` of each row's labels."""
        return -self.nats(batch)

    def rate(self, step: int) -> float:
        """Return the learning rate at a step, as a share of its peak."""
        last = self.trainer.estimated_stepping_batches
        if not 0 < last < math.inf:
            raise UserError(
                f"the learning rate falls towards the last step, and with max_epochs {self.trainer.max_epochs} there "
                "is none: set trainer.max_epochs to 1 or more"
            )
        start = self.flat * last
        progress = min(max(0.0, (step - start) / max(last - start, 1)), 1.0)
        cosine = (1 + math.cos(math.pi * progress)) / 2
        return min(1.0, (step + 1) / (self.warm_up + 1)) * (self.floor + (1 - self.floor) * cosine)

    def configure_optimizers(self) -> dict[str, Any]:
        matrices = [p for p in self.parameters() if p.requires_grad and p.ndim > 1]
        vectors = [p for p in self.parameters() if p.requires_grad and p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": self.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=self.learning_rate, betas=self.betas, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # ---- the result

    def on_fit_end(self) -> None:
        """Write the best checkpoint's weights in Hugging Face form."""
        weights = self.trainer.strategy.lightning_module_state_dict()  # gathered from all processes on the first
        is_trial = cast(Any, self.trainer).fast_dev_run
        if not self.trainer.is_global_zero or self.trainer.interrupted or is_trial:
            return
        saver = self.trainer.checkpoint_callback
        best = Path(saver.best_model_path) if isinstance(saver, ModelCheckpoint) and saver.best_model_path else None
        if best is not None and best.is_file():
            weights = checkpoint.load(best)["state_dict"]
        weights = {name.removeprefix("network."): value for name, value in weights.items()}
        for name in self.network.all_tied_weights_keys:  # gathered from many processes, they would be saved twice
            weights.pop(name, None)
        folder = self.folder or (best.parent if best is not None else self.trainer.default_root_dir)
        save(self.network, self.tokenizer, weights, Path(folder))


def save(network: "PreTrainedModel", tokenizer: Any, weights: dict[str, Tensor], folder: Path) -> None:
    """Write weights, config and tokenizer into a folder; each file is written aside, then renamed, the weights last."""
    with folder_aside(folder, "writing") as aside:
        network.save_pretrained(aside, state_dict=weights)
        tokenizer.save_pretrained(aside)
        for file in sorted(aside.iterdir(), key=lambda path: path.suffix == ".safetensors"):
            file.chmod(0o644)  # safetensors makes it readable only for its owner
            check_regular(folder / file.name)
            file.replace(folder / file.name)
