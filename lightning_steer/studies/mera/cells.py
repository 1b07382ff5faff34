"""The study's cells: every method on one task, for all tasks of a model, a mixture and a draw."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_steer.data.mera.module import MERADataModule
from lightning_steer.data.mera.tasks import LabelledExample, PocketTask
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import LastPromptToken
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.metrics.answers import label_probabilities
from lightning_steer.metrics.columns import as_numbers
from lightning_steer.metrics.probe_scores import R2, R2_GAIN
from lightning_steer.probes.error_probe import logit_error
from lightning_steer.probes.moments import Moments
from lightning_steer.probes.probe_selection import PENALTIES, Selected, select
from lightning_steer.probes.sparse_autoencoder import train_sparse_autoencoder
from lightning_steer.studies.mera import certificate_check, controls, ground_truth, settings
from lightning_steer.studies.mera.decisions import Decisions
from lightning_steer.studies.mera.families import SEQUENTIAL_ROWS, families, sequential, weighed_families
from lightning_steer.studies.mera.judging import AnsweredSplit, Weighed, beyond, certified, judged, method

BEYOND = ("MERA", "Mahalanobis MERA", "Mahalanobis MERA, last layer")
"""Families that are compared with the fitted label bias, row by row."""


def load(folder: str, chat: bool) -> LLM:
    """Load a language model that is read at the last token of every layer."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    llm = LLM(folder, layers=[0], positions=LastPromptToken(), chat=chat)
    llm.load()
    return llm.every_layer()


def questions(data: MERADataModule, examples: Sequence[LabelledExample], before: str = "") -> list[MultipleChoice]:
    """Return the prompts with the labels as choices."""
    return [MultipleChoice(before + example.prompt, data.choices) for example in examples]


def split(llm: LLM, data: MERADataModule, examples: list[LabelledExample]) -> AnsweredSplit:
    """Return the prompts, run up to their last token."""
    y = torch.tensor([example.label for example in examples])
    return AnsweredSplit(examples, y, Decisions(llm, questions(data, examples)))


def part(
    folder: Path, model: str, mixture: str, seed: int, tasks: Sequence[str], sizes: tuple[int, int, int]
) -> dict[str, Any]:
    """Run one model, mixture and draw of the splits on one thread; each core has its own process."""
    torch.set_num_threads(1)
    return run(load(str(folder / model), model == "tuned"), mixture, seed, tasks, sizes)


def run(llm: LLM, mixture: str, seed: int, tasks: Sequence[str], sizes: tuple[int, int, int]) -> dict[str, Any]:
    """Return ``{task: results}`` for one model, mixture and draw of the splits."""
    share = settings.MIXTURES[mixture]
    modules = {}
    for task in tasks:
        modules[task] = MERADataModule(PocketTask(task, share, chat=llm.chat), *sizes, seed=seed)
        modules[task].setup()
        modules[task].check_tokens(llm)
    calibration = {task: split(llm, data, data.calibration) for task, data in modules.items()}
    return {task: cell(llm, data, calibration[task], _others(calibration, task)) for task, data in modules.items()}


def _others(calibration: dict[str, AnsweredSplit], task: str) -> list[AnsweredSplit]:
    return [rows for name, rows in calibration.items() if name != task]


def cell(llm: LLM, data: MERADataModule, calibration: AnsweredSplit, others: list[AnsweredSplit]) -> dict[str, Any]:
    """Run one task: fit probes, certify and test every family and the controls, compare with the planted truth."""
    start = time.process_time()
    observed = [(batch, *llm.observe(batch.x)) for batch in data.batches(data.train)]
    train_y = torch.cat([batch.y for batch, _, _ in observed])
    logp = torch.cat([scores for _, scores, _ in observed])
    h = torch.stack([torch.cat([activations[site] for _, _, activations in observed]) for site in llm.sites])
    p = label_probabilities(logp, torch.arange(len(data.labels)))
    error = 1 - p[torch.arange(len(p)), train_y]
    selected = probes(h, error)
    test = split(llm, data, data.test)
    all_families = families(h, error, selected)
    sequential_rows = split(llm, data, data.train[:SEQUENTIAL_ROWS])
    for name, mahalanobis in (("MERA, all layers", False), ("Mahalanobis MERA, all layers", True)):
        all_families.append(sequential(sequential_rows.decisions, sequential_rows.y, mahalanobis, name))
    known = ground_truth.GroundTruth(data, test.examples)
    methods = {family.name: method(llm, family, calibration, test, others, known) for family in all_families}
    methods["prompt"] = prompted(llm, data, calibration, test)
    bias = controls.fitted_bias(logp, train_y)
    methods |= labels_weighed(data, logp, bias, train_y, calibration, test)
    weighed_error = 1 - (logp.double() + bias).softmax(-1)[torch.arange(len(p)), train_y]
    for family in weighed_families(h, weighed_error, selected):
        weighed_calibration, weighed_test = (
            s._replace(decisions=Weighed(s.decisions, bias)) for s in (calibration, test)
        )
        methods[family.name] = method(llm, family, weighed_calibration, weighed_test, [], known)
    for family in all_families:
        if family.name in BEYOND:
            number = methods[family.name]["number"]
            methods[family.name]["beyond_bias"] = beyond(test, family.scores(test.decisions, [number])[0], bias)
    last_layer = next(f for f in all_families if f.name == "Mahalanobis MERA, last layer")
    error_rates = {}
    if data.seed == settings.FIRST_DRAW and not llm.chat:
        steered_right = (last_layer.scores(test.decisions).argmax(-1) == test.y).numpy()
        error_rates = certificate_check.check(test.right.numpy(), steered_right, len(calibration.y), settings.DELTA)
    return {
        "labels": list(data.labels),
        "rows": {"train": len(train_y), "calibration": len(calibration.y), "test": len(test.y)},
        "methods": methods,
        "probes": figures(selected),
        "encodings": encodings(h[-1], error),
        "promise": error_rates,
        "core_seconds": time.process_time() - start,
        "truth": ground_truth.figures(data, h, last_layer.maps[0][len(h) - 1], test, known),
    }


def probes(h: Tensor, error: Tensor) -> Selected:
    """Choose probes of all layers by cross-validation on the training rows, which come in random order."""
    target, fold = logit_error(error), torch.arange(h.shape[1]) % settings.FOLDS
    return select(Moments.like(h, target, settings.FOLDS).add(h, target, fold))


def figures(selected: Selected) -> dict[str, Any]:
    """Return the figures of each layer's chosen probe."""
    index = selected.best.expand(len(selected.r2), -1).unsqueeze(-1)
    return {
        "r2": selected.score.tolist(),
        "r2_of_folds": selected.r2.gather(-1, index).squeeze(-1).tolist(),
        "rmse": selected.rmse.gather(-1, index).squeeze(-1).mean(0).tolist(),
        "penalty": [PENALTIES[int(i)] for i in selected.best],
        "features": (selected.chosen.weight != 0).sum(-1).tolist(),
        "gap": selected.gap.amax(-1).tolist(),
    }


def encodings(h: Tensor, error: Tensor) -> dict[str, float]:
    """Compare a lasso on a small sparse autoencoder's features with one on the activations; measure the cost.

    Both are chosen by cross-validation on the first four fifths of the rows and scored on the rest, which neither they
    nor the autoencoder have seen. ``_low`` and ``_high`` end 95 % intervals over those rows; that of ``r2_gain``,
    features less activations, is paired.
    """
    start, train_rows = time.process_time(), len(error) * 4 // 5
    sae = train_sparse_autoencoder(h[:train_rows], 4 * h.shape[-1])
    seconds, z, target = time.process_time() - start, sae.encode(h), logit_error(error)
    variance_lost = float((h - sae.decode(z))[train_rows:].square().sum() / (h - h.mean(0))[train_rows:].square().sum())
    rows = len(target) - train_rows
    chosen, predicted = {}, {}
    for name, x in (("r2", z), ("r2_activations", h)):
        chosen[name] = probes(x[:train_rows].unsqueeze(0), error[:train_rows]).chosen
        predicted[name] = as_numbers(x[train_rows:].double() @ chosen[name].weight[0] + chosen[name].intercept[0])
    held_out = as_numbers(target[train_rows:])
    score = {name: R2.estimate(values, held_out)[0] for name, values in predicted.items()}
    score["r2_gain"] = R2_GAIN.estimate(predicted["r2"], predicted["r2_activations"], held_out)[0]
    figures = {name: estimate.value for name, estimate in score.items()}
    figures |= {f"{name}_{end}": getattr(estimate, end) for name, estimate in score.items() for end in ("low", "high")}
    return figures | {
        "rows": float(rows),
        "features_used": float((chosen["r2"].weight != 0).sum()),
        "active_features": float((z > 0).double().sum(1).mean()),
        "variance_lost": variance_lost,
        "core_seconds": seconds,
    }


def prompted(llm: LLM, data: MERADataModule, calibration: AnsweredSplit, test: AnsweredSplit) -> dict[str, Any]:
    """Certify and test the baseline that changes the prompt."""
    logits = [Decisions(llm, questions(data, s.examples, settings.PROMPT)).base for s in (calibration, test)]
    return certified(calibration, logits[0].unsqueeze(0), [1.0]) | judged(test, logits[1])


def labels_weighed(
    data: MERADataModule, logp: Tensor, fitted: Tensor, y: Tensor, calibration: AnsweredSplit, test: AnsweredSplit
) -> dict[str, Any]:
    """Certify and test the controls: constant class and two label biases."""
    results = {}
    for name, bias in (("label bias, fitted", fitted), ("label bias, contextual", controls.contextual_bias(logp))):
        calibration_logits, test_logits = (s.decisions.base.double() + bias for s in (calibration, test))
        results[name] = certified(calibration, calibration_logits.unsqueeze(0), [1.0]) | judged(test, test_logits)
    constant = torch.nn.functional.one_hot(controls.constant_class(y, test.decisions.base), len(data.labels)) * 20.0
    calibration_logits = constant[:1].expand(len(calibration.y), -1)
    results["constant class"] = certified(calibration, calibration_logits.unsqueeze(0), [1.0]) | judged(test, constant)
    return results
