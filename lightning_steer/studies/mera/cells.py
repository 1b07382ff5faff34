"""One cell of the study: every method on one task, and one for all tasks of a model, a mixture and a draw."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_steer.data.mera.module import MERADataModule
from lightning_steer.data.mera.tasks import Example, PocketTask
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
from lightning_steer.studies.mera import controls, settings, truth
from lightning_steer.studies.mera.decisions import Decisions
from lightning_steer.studies.mera.families import SEQUENTIAL_ROWS, families, sequential, weighed_families
from lightning_steer.studies.mera.judging import Split, Weighed, beyond, certified, judged, method
from lightning_steer.studies.mera.promise import kept

BEYOND = ("MERA", "Mahalanobis MERA", "Mahalanobis MERA, last layer")
"""Families that are compared, row by row, with the fitted label bias."""


def load(folder: str, chat: bool) -> LLM:
    """A language model, read at the last token of every layer."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    llm = LLM(folder, layers=[0], positions=LastPromptToken(), chat=chat)
    llm.load()
    return llm.every_layer()


def questions(data: MERADataModule, examples: Sequence[Example], before: str = "") -> list[MultipleChoice]:
    """Prompts with the labels as options."""
    return [MultipleChoice(before + example.prompt, data.options) for example in examples]


def split(llm: LLM, data: MERADataModule, examples: list[Example]) -> Split:
    """Prompts, run up to their last token."""
    y = torch.tensor([example.label for example in examples])
    return Split(examples, y, Decisions(llm, questions(data, examples)))


def part(
    folder: Path, model: str, mixture: str, seed: int, tasks: Sequence[str], sizes: tuple[int, int, int]
) -> dict[str, Any]:
    """One model, mixture and draw of the splits, on one thread: there is a process for every core."""
    torch.set_num_threads(1)
    return run(load(str(folder / model), model == "tuned"), mixture, seed, tasks, sizes)


def run(llm: LLM, mixture: str, seed: int, tasks: Sequence[str], sizes: tuple[int, int, int]) -> dict[str, Any]:
    """``{task: results}`` of one model, mixture and draw of the splits."""
    share = settings.MIXTURES[mixture]
    modules = {}
    for task in tasks:
        modules[task] = MERADataModule(PocketTask(task, share, chat=llm.chat), *sizes, seed=seed)
        modules[task].setup()
        modules[task].check_tokens(llm)
    calibration = {task: split(llm, data, data.calibration) for task, data in modules.items()}
    return {task: cell(llm, data, calibration[task], _others(calibration, task)) for task, data in modules.items()}


def _others(calibration: dict[str, Split], task: str) -> list[Split]:
    return [one for name, one in calibration.items() if name != task]


def cell(llm: LLM, data: MERADataModule, calibration: Split, others: list[Split]) -> dict[str, Any]:
    """One task: probes, every family certified and tested, controls, what was planted."""
    began = time.process_time()
    observed = [(batch, *llm.observe(batch.x)) for batch in data.batches(data.train)]
    train_y = torch.cat([batch.y for batch, _, _ in observed])
    logp = torch.cat([scores for _, scores, _ in observed])
    h = torch.stack([torch.cat([at[site] for _, _, at in observed]) for site in llm.sites])
    p = label_probabilities(logp, torch.arange(len(data.labels)))
    error = 1 - p[torch.arange(len(p)), train_y]
    selected = probes(h, error)
    test = split(llm, data, data.test)
    every = families(h, error, selected)
    few = split(llm, data, data.train[:SEQUENTIAL_ROWS])
    for name, ours in (("MERA, all layers", False), ("Mahalanobis MERA, all layers", True)):
        every.append(sequential(few.decisions, few.y, ours, name))
    planted = truth.Planted(data, test.examples)
    methods = {family.name: method(llm, family, calibration, test, others, planted) for family in every}
    methods["prompt"] = prompted(llm, data, calibration, test)
    bias = controls.fitted_bias(logp, train_y)
    methods |= labels_weighed(data, logp, bias, train_y, calibration, test)
    weighed_error = 1 - (logp.double() + bias).softmax(-1)[torch.arange(len(p)), train_y]
    for family in weighed_families(h, weighed_error, selected):
        cal, new = (s._replace(decisions=Weighed(s.decisions, bias)) for s in (calibration, test))
        methods[family.name] = method(llm, family, cal, new, [], planted)
    for family in every:
        if family.name in BEYOND:
            number = methods[family.name]["number"]
            methods[family.name]["beyond_bias"] = beyond(test, family.scores(test.decisions, [number])[0], bias)
    last = next(f for f in every if f.name == "Mahalanobis MERA, last layer")
    promise = {}
    if data.seed == settings.FIRST_DRAW and not llm.chat:
        right = (last.scores(test.decisions).argmax(-1) == test.y).numpy()
        promise = kept(test.right.numpy(), right, len(calibration.y), settings.DELTA)
    return {
        "labels": list(data.labels),
        "rows": {"train": len(train_y), "calibration": len(calibration.y), "test": len(test.y)},
        "methods": methods,
        "probes": figures(selected),
        "encodings": encodings(h[-1], error),
        "promise": promise,
        "core_seconds": time.process_time() - began,
        "truth": truth.figures(data, h, last.maps[0][len(h) - 1], test, planted),
    }


def probes(h: Tensor, error: Tensor) -> Selected:
    """Probes of all layers, chosen by cross-validation in the training rows, which come in random order."""
    target, fold = logit_error(error), torch.arange(h.shape[1]) % settings.FOLDS
    return select(Moments.like(h, target, settings.FOLDS).add(h, target, fold))


def figures(selected: Selected) -> dict[str, Any]:
    """Of each layer's chosen probe."""
    at = selected.best.expand(len(selected.r2), -1).unsqueeze(-1)
    return {
        "r2": selected.score.tolist(),
        "r2_of_folds": selected.r2.gather(-1, at).squeeze(-1).tolist(),
        "rmse": selected.rmse.gather(-1, at).squeeze(-1).mean(0).tolist(),
        "penalty": [PENALTIES[int(i)] for i in selected.best],
        "features": (selected.chosen.weight != 0).sum(-1).tolist(),
        "gap": selected.gap.amax(-1).tolist(),
    }


def encodings(h: Tensor, error: Tensor) -> dict[str, float]:
    """A lasso on a small sparse autoencoder's features beside one on the activations; what the autoencoder costs.

    Both are chosen by cross-validation in the first four fifths of the rows and scored on the rest, which neither they
    nor the autoencoder have seen. ``_low`` and ``_high`` end 95 % intervals over those rows; that of ``r2_gain``,
    features less activations, is paired.
    """
    start, cut = time.process_time(), len(error) * 4 // 5
    sae = train_sparse_autoencoder(h[:cut], 4 * h.shape[-1])
    seconds, z, target = time.process_time() - start, sae.encode(h), logit_error(error)
    lost = float((h - sae.decode(z))[cut:].square().sum() / (h - h.mean(0))[cut:].square().sum())
    rows = len(target) - cut
    chosen, predicted = {}, {}
    for name, x in (("r2", z), ("r2_activations", h)):
        chosen[name] = probes(x[:cut].unsqueeze(0), error[:cut]).chosen
        predicted[name] = as_numbers(x[cut:].double() @ chosen[name].weight[0] + chosen[name].intercept[0])
    new = as_numbers(target[cut:])
    score = {name: R2.estimate(guess, new)[0] for name, guess in predicted.items()}
    score["r2_gain"] = R2_GAIN.estimate(predicted["r2"], predicted["r2_activations"], new)[0]
    found = {name: one.value for name, one in score.items()}
    found |= {f"{name}_{end}": getattr(one, end) for name, one in score.items() for end in ("low", "high")}
    return found | {
        "rows": float(rows),
        "features_used": float((chosen["r2"].weight != 0).sum()),
        "active_features": float((z > 0).double().sum(1).mean()),
        "variance_lost": lost,
        "core_seconds": seconds,
    }


def prompted(llm: LLM, data: MERADataModule, calibration: Split, test: Split) -> dict[str, Any]:
    """The baseline that asks in words."""
    new = [Decisions(llm, questions(data, s.examples, settings.PROMPT)).base for s in (calibration, test)]
    return certified(calibration, new[0].unsqueeze(0), [1.0]) | judged(test, new[1])


def labels_weighed(
    data: MERADataModule, logp: Tensor, fitted: Tensor, y: Tensor, calibration: Split, test: Split
) -> dict[str, Any]:
    """The controls: constant class, and two label biases, certified like any other."""
    found = {}
    for name, bias in (("label bias, fitted", fitted), ("label bias, contextual", controls.contextual_bias(logp))):
        cal, new = (s.decisions.base.double() + bias for s in (calibration, test))
        found[name] = certified(calibration, cal.unsqueeze(0), [1.0]) | judged(test, new)
    one = torch.nn.functional.one_hot(controls.constant_class(y, test.decisions.base), len(data.labels)) * 20.0
    cal = one[:1].expand(len(calibration.y), -1)
    found["constant class"] = certified(calibration, cal.unsqueeze(0), [1.0]) | judged(test, one)
    return found
