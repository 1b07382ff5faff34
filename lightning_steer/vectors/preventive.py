"""Preventive steering: a vector is added while a model is fine-tuned, and is gone from the model that results.

``h <- h + strength * v`` in every training step, towards what the training data would teach beside what is wanted: the
loss is then met without the weights moving there. Source: Chen et al. 2025, arXiv 2507.21509, section 5.2
("preventative steering") and the ``"type": "steer"`` of ``training.py`` in safety-research/persona_vectors: all tokens,
one layer, the mean difference. Ours, and not theirs: here it works beside any training of all weights (theirs train
LoRA), and the vector's own model and tokens are checked.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning as L

from lightning_steer.cache.files import digest
from lightning_steer.errors import UserError
from lightning_steer.lm.positions import AllTokens
from lightning_steer.numbers import ranged
from lightning_steer.resources import resource_path
from lightning_steer.runs.traced import TracedModule
from lightning_steer.vectors import fingerprint
from lightning_steer.vectors.file import load
from lightning_steer.vectors.steer import edit, positions_of


class PreventiveSteering(L.Callback):
    """Add a vector in every training step of a language model; validation, test and what is saved are without it.

    Args:
        vector: vector file, of the model that the training starts from; it acts on all tokens.
        strength: in the units of the vector's card; null for the card's own. Positive steers towards what is to be
            prevented.
    """

    @ranged
    def __init__(self, vector: str, strength: float | None = None) -> None:
        self.path = resource_path(vector)
        self.vector = load(self.path)
        self.strength = self.vector.card.strength.value if strength is None else strength
        rule = positions_of(self.vector.card)
        if not isinstance(rule, AllTokens):
            raise UserError(
                f"{vector} steers {type(rule).__name__}, and a text to learn has no prompt: give a vector that acts on "
                "AllTokens"
            )
        self._step = ExitStack()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Put vector and strength on the record of what is fitted, before the module makes it."""
        if not isinstance(pl_module, TracedModule) or not hasattr(pl_module, "during_training"):
            raise UserError(f"preventive steering is for LanguageModel, not for {type(pl_module).__name__}")
        module: Any = pl_module
        module.during_training = {"vector": digest(Path(self.path)), "strength": self.strength}

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compare the vector's model with the one that the training started from; raise ValueError if it differs."""
        module: Any = pl_module
        started = module.provenance.weights  # a fit that goes on has other weights by now

        def identify(_files: bool) -> fingerprint.Model:
            return fingerprint.of(module.network, module.tokenizer, files=False)._replace(memory=started)

        fingerprint.refuse(self.vector.card.model, identify)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Steer until the step has ended."""
        network: Any = pl_module.network
        self._step.enter_context(edit(network, self.vector, self.strength, other_model=True))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Leave the network as it is saved."""
        self._step.close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leave the network unsteered where a step failed or was interrupted."""
        self._step.close()
