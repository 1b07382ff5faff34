"""A pocket model's errors in the tasks: planted ones, a linear probe for them, and their repair by an oracle."""

from functools import partial

import numpy as np
import torch
from scipy.special import logit
from scipy.stats import rankdata
from torch import Tensor

from lightning_steer.data.pocket import prompts as pocket_prompts
from lightning_steer.data.pocket import tasks as pocket_tasks
from lightning_steer.data.pocket.prompts import TaskPrompt
from lightning_steer.hooks import edit
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.jackknife import estimate_of_rows
from lightning_steer.studies.pocket.measures import Figures, share
from lightning_steer.studies.pocket.reader import Edits, PocketReader, ReadPart, last, opened


def auc(score: np.ndarray, wrong: np.ndarray) -> float:
    """Return the probability that a wrong row scores above a right one; NaN if one kind is missing."""
    ranks, positives = rankdata(score), int(wrong.sum())
    if positives in (0, len(wrong)):
        return float("nan")
    return float((ranks[wrong].sum() - positives * (positives + 1) / 2) / (positives * (len(wrong) - positives)))


def answers(reader: PocketReader, prompts: list[TaskPrompt], as_chat: bool, edits: Edits | None = None) -> np.ndarray:
    """Return P(label | prompt) ``[n, labels]``, normalised over the labels."""
    labels = torch.tensor(reader.tokenizer.convert_tokens_to_ids(list(prompts[0].labels)))
    return reader.next([opened(p.prompt, as_chat) for p in prompts], edits)[:, labels].softmax(-1).numpy()


def _hidden(reader: PocketReader, prompts: list[TaskPrompt], as_chat: bool) -> Tensor:
    return reader.read([opened(p.prompt, as_chat) for p in prompts], last)


def task(reader: PocketReader, name: str, as_chat: bool, n: int, seed: int = 0) -> Figures:
    """Measure accuracy by cue, errors against planted ones, a linear probe for them, and repair by removing the cue."""
    train = pocket_prompts.task_prompts(name, 2000, 1000 + seed, chat=as_chat)
    test = pocket_prompts.task_prompts(name, n, seed, chat=as_chat)
    labels = np.array([item.label for item in test])
    rows, true_errors = np.arange(n), np.array([item.ground_truth for item in test])
    p = answers(reader, test, as_chat)
    right, error = p.argmax(1) == labels, 1 - p[rows, labels]
    planted_error = np.array([item.error for item in test])
    careless = np.array([item.rate > 0 for item in test])
    deleted = answers(reader, [pocket_prompts.without_cue(item) for item in test], as_chat).argmax(1) == labels
    rare = pocket_prompts.task_prompts(name, n, seed, pull_share=0.1, chat=as_chat)
    figures = {
        "accuracy": share(right),
        "accuracy, planted": share(true_errors.argmax(1) == labels),
        "accuracy, careful": share(right[~careless]),
        "accuracy, careful, planted": share((true_errors.argmax(1) == labels)[~careless]),
        "accuracy, careless": share(right[careless]),
        "accuracy, cue deleted": share(deleted),
        "accuracy, 10 % pull class": share(answers(reader, rare, as_chat).argmax(1) == [item.label for item in rare]),
        "error against planted": estimate_of_rows(
            lambda i: float(np.corrcoef(error[i], planted_error[i])[0, 1]), n, low=-1, high=1
        ),
    }
    # a linear probe on logit(E) at the last token; its layer is chosen on a quarter of the training prompts
    h, h_test = _hidden(reader, train, as_chat).double().numpy(), _hidden(reader, test, as_chat).double().numpy()
    y, wrong = _errors(reader, train, as_chat)
    fit = np.arange(len(train)) < 1500
    chosen = int(np.nanargmax([auc(_probe(h[fit, k], y[fit], h[~fit, k]), wrong[~fit]) for k in range(h.shape[1])]))
    score = _probe(h[:, chosen], y, h_test[:, chosen])
    class_score = np.array([y[[item.label == k for item in train]].mean() for k in range(p.shape[1])])[labels]
    figures |= {
        "probe AUC": estimate_of_rows(lambda i: auc(score[i], ~right[i]), n, low=0, high=1),
        "probe AUC within classes": estimate_of_rows(
            lambda i: _within(score[i], ~right[i], labels[i]), n, low=0, high=1
        ),
        "AUC of the true class alone": estimate_of_rows(lambda i: auc(class_score[i], ~right[i]), n, low=0, high=1),
        "probe layer": Estimate(chosen, chosen, chosen, len(train), None, "by definition"),
    }
    repaired = answers(reader, test, as_chat, _cue_removed(reader, train, test, as_chat)).argmax(1) == labels
    figures["oracle net repair"] = estimate_of_rows(
        lambda i: float((repaired[i].sum() - right[i].sum()) / (~right[i]).sum()), n, high=1
    )
    figures["oracle harm"] = share(~repaired[right])
    return figures


def _errors(reader: PocketReader, prompts: list[TaskPrompt], as_chat: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return logit(E) and whether the answer is wrong, ``[n]`` each."""
    p, labels = answers(reader, prompts, as_chat).astype(float), np.array([item.label for item in prompts])
    error = 1 - p[np.arange(len(p)), labels]
    return logit(error.clip(1e-6, 1 - 1e-6)), p.argmax(1) != labels


def _probe(h: np.ndarray, y: np.ndarray, h_new: np.ndarray) -> np.ndarray:
    """Predict with a ridge regression with intercept, close to least squares."""
    mean, scale = h.mean(0), h.std(0) + 1e-9
    z = (h - mean) / scale
    w = np.linalg.solve(z.T @ z + len(z) * 1e-3 * np.eye(z.shape[1]), z.T @ (y - y.mean()))
    return (h_new - mean) / scale @ w + y.mean()


def _within(score: np.ndarray, wrong: np.ndarray, labels: np.ndarray) -> float:
    """Return the AUC over pairs of the same true class, where knowing the class alone gives .5."""
    values, pairs = [], []
    for k in np.unique(labels):
        rows = labels == k
        values.append(auc(score[rows], wrong[rows]))
        pairs.append(float(wrong[rows].sum()) * float((~wrong[rows]).sum()))
    return float(np.nansum(np.multiply(values, pairs)) / np.sum(pairs))


def _cue_removed(reader: PocketReader, learn: list[TaskPrompt], test: list[TaskPrompt], as_chat: bool) -> Edits:
    """Build the oracle: at every layer's last token, shift a careless marker's mean activation to the careful mean.

    It knows each row's marker. All shifts are measured in one pass over ``learn`` as one batch. When a layer's shift
    is measured, those of the layers below are already applied, so nothing is corrected twice.
    """
    shift = torch.zeros(len(reader.sites), len(pocket_tasks.MARKERS), reader.network.config.hidden_size)

    def moved(h: Tensor, k: int, part: ReadPart, marker: Tensor, measured: bool) -> Tensor:
        ends = last(part)
        if measured:
            careful = h[ends][marker < 5].mean(0)
            for name in range(5, len(pocket_tasks.MARKERS)):
                shift[k, name] = careful - h[ends][marker == name].mean(0)
        return h + ends[..., None] * shift[k, marker, None]

    def edits(prompts: list[TaskPrompt], measured: bool) -> Edits:
        markers = torch.tensor([pocket_tasks.MARKERS.index(item.marker) for item in prompts])
        return lambda part: {
            site: partial(moved, k=k, part=part, marker=markers[part.rows], measured=measured)
            for k, site in enumerate(reader.sites)
        }

    (batch,) = reader.parts([opened(item.prompt, as_chat) for item in learn], tokens=10**9)
    with edit(reader.network, edits(learn, True)(batch)):
        reader.network.model(input_ids=batch.ids, use_cache=False)
    return edits(test, False)
