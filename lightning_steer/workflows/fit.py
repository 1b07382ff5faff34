"""Fit a steering vector from Python, silently, with the module, data module and trainer of the command line."""

import math
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import lightning as L

from lightning_steer import numbers
from lightning_steer.data.behaviours.module import BehaviourDataModule
from lightning_steer.data.behaviours.pairs import ContrastPair, Pairs
from lightning_steer.errors import UserError
from lightning_steer.hooks import is_edited
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import GeneratedTokens
from lightning_steer.methods import MeanDifference
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.metrics import BehaviourEffect
from lightning_steer.modules.steering import SteeringAdaptor
from lightning_steer.quiet import silent
from lightning_steer.report.files import finite
from lightning_steer.vectors import SteeringVector, of


def fit(
    llm: LLM | str,
    pairs: Sequence[ContrastPair],
    layers: int | Sequence[int] | None = None,
    method: Callable[[int], SteeringMethod] = MeanDifference,
    strengths: Sequence[float] = (1.0,),
    reference_texts: Sequence[str] = (),
    epochs: int = 1,
    seed: int = 0,
    progress: bool = False,
) -> SteeringVector:
    """Fit a method to two fifths of the pairs, choose its strength on a tenth, judge it on the rest.

    Args:
        llm: the model, loaded or not; or a hub name or folder.
        pairs: at least three with different prompts; pairs with one prompt stay together.
        layers: decoder blocks to steer, counted from 0, negative from the end; None for the model's own.
        method: makes an unfitted method from a width: a class of ``lightning_steer.methods``, or a partial of one.
        strengths: those to choose from, in the method's units.
        reference_texts: texts that steering should leave alone; without them no damage is measured.
        epochs: passes over the pairs, for methods that are trained through the output.
        seed: draws the split.
        progress: show Lightning's progress bars.

    Returns:
        The vector. Its card holds the effect and the side effects on the held-out pairs; print it to see them.

    Raises:
        ValueError: the pairs cannot be split or read, or a layer or strength does not exist.
    """
    numbers.check({"epochs": epochs, "seed": seed})
    check_method(method, strengths)
    module = SteeringAdaptor(backbone(llm, layers), method, BehaviourEffect(), strengths, learning_curve=False)
    return run(module, BehaviourDataModule(Pairs(pairs, reference_texts), seed=seed), epochs, progress)


def run(
    module: SteeringAdaptor,
    data: BehaviourDataModule,
    epochs: int = 1,
    progress: bool = False,
    folder: Path | None = None,
) -> SteeringVector:
    """Fit and test a steering module, and return its vector.

    Args:
        module: the module.
        data: the pairs.
        epochs: passes over them.
        progress: show Lightning's progress bars.
        folder: where the report goes; None keeps none.
    """
    llm = cast(LLM, module.backbone)
    device = llm.device
    with silent(), ExitStack() as stack:
        stack.callback(lambda: llm.to(device))  # a trainer takes it to its own, and leaves it on the CPU
        report_folder = folder or stack.enter_context(
            tempfile.TemporaryDirectory()
        )  # the card holds the report's content
        trainer = L.Trainer(
            max_epochs=epochs,
            check_val_every_n_epoch=epochs,  # the strength is chosen for what the last one leaves
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=progress,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            default_root_dir=report_folder,
        )
        trainer.fit(module, data)
        trainer.test(module, data, verbose=False)
    return _vector(module)


def check_method(method: object, strengths: object) -> None:
    """Raise TypeError if a method is named instead of given, or strengths are a single number."""
    if not callable(method):
        raise TypeError(f"method is {method!r}, not a class such as lightning_steer.methods.MeanDifference")
    if not isinstance(strengths, Sequence) or isinstance(strengths, str):
        raise TypeError(f"strengths is {strengths!r}, not a list of numbers such as [0.5, 1.0]")


def backbone(llm: LLM | str, layers: int | Sequence[int] | None) -> LLM:
    """Return the model, read at a continuation's tokens and scored in nats per token, as in the behaviours' config."""
    source = LLM(llm) if isinstance(llm, str) else llm
    source.load()
    requested = source.layers if layers is None else layers
    requested = requested if isinstance(requested, int) else list(requested)
    configured = LLM(
        source.llm, requested, source.part, source.positions, GeneratedTokens(), "tokens", source.chat, source.system
    )
    configured.loading, configured.tokens_per_batch = source.loading, source.tokens_per_batch
    configured.adopt(source.model, source.tokenizer)
    if any(is_edited(source.model, site) for site in configured.sites):
        raise UserError(
            f"{source.name} is being steered or read at {', '.join(configured.sites)}: leave that block first"
        )
    return configured


def _vector(module: SteeringAdaptor) -> SteeringVector:
    """Return the fitted methods with a card of their test results."""
    report: dict[str, Any] = finite(module.report)  # as in report.json
    strength, low, high, rows, bound = module.choice.tolist()
    metrics, compared = report["metrics"], report["baselines"]["baseline"]
    side_effects = {
        name: estimate for name, estimate in metrics.items() if name.startswith(("reference_", "perplexity", "text_"))
    }
    return of(
        module.backbone,
        module.methods,
        strength,
        None if math.isnan(low + high) else (low, high),
        int(rows),
        task=report["task"],
        effect={name: metrics[name] for name in compared if name in metrics and name not in side_effects},
        drift=side_effects,
        certificate={"reason": module.reason, "bound": None if math.isnan(bound) else bound},
        warnings=report["warnings"],
    )
