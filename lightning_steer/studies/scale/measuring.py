"""What is measured of one model: units (documents, terms, prompts, cells) in the same order for every size."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightning_steer.data.pocket import items as pocket_items
from lightning_steer.data.pocket import module as pocket
from lightning_steer.data.pocket.prompts import task_prompts
from lightning_steer.data.pocket.tasks import NAMES as TASKS
from lightning_steer.data.pocket.text import BOS, EOS, ITEMS
from lightning_steer.studies.arena import language
from lightning_steer.studies.arena.entrants import entrants
from lightning_steer.studies.fidelity.settings import BIAS_TYPES, LAYER, Arm
from lightning_steer.studies.fidelity.subject import Subject, added, directions
from lightning_steer.studies.fidelity.sweep import rows_of
from lightning_steer.studies.fidelity.verdict import by_term
from lightning_steer.studies.mera.crossed import jobs
from lightning_steer.studies.mera.crossed.results import Key
from lightning_steer.studies.pocket.errors import answers
from lightning_steer.studies.pocket.reader import PocketReader, opened
from lightning_steer.studies.scale import declared
from lightning_steer.studies.scale.design import Design

PAIRS = 6
"""Pairs of opposites among a term's words."""
CHATS = {"base": 0.0, "tuned": 0.7}
"""Share of chats in what a model was trained on."""


@torch.no_grad()
def knowledge(folder: Path, model: str, design: Design) -> dict[str, Any]:
    """Return ``{contrast: [units]}`` of the question *Knowledge*, and means that its text names."""
    reader = PocketReader(folder)
    documents = pocket.documents((ITEMS, 9, design.document_seed), design.documents, CHATS[model])
    texts = [f"{'' if text.startswith(BOS) else f'{BOS} '}{text} {EOS}" for text, _ in documents]
    logp = reader.tokens(texts)
    gap = [(document.logp - float(row.sum())) / len(row) for document, row in zip(documents, logp, strict=True)]
    error, blind = _log_odds(reader)
    wrong, mean = _task_errors(reader, design)
    return {
        "units": {
            f"loss, {model}": gap,
            f"log-odds, {model}": (error - blind / 2).tolist(),
            f"task errors, {model}": (wrong - mean / 2).tolist(),
        },
        "sizes": {
            "log-odds": [float(error.mean()), float(blind.mean())],
            "task errors": [float(wrong.mean()), float(mean.mean())],
        },
    }


def _log_odds(reader: PocketReader) -> tuple[np.ndarray, np.ndarray]:
    """Return by term that training lacks the size of the log-odds' error, the model's and a group-blind table's."""
    items = pocket_items.traits()
    logp = reader.next([f"{opened(item.prompt, False)} {item.begun}" for item in items])
    words = torch.tensor([reader.tokenizer.convert_tokens_to_ids(list(item.words)) for item in items])
    p, names = logp.gather(1, words).double().exp().numpy(), np.array([item.target for item in items])
    first = {item.target: item for item in items}
    table = {name: np.array(item.ground_truth) for name, item in first.items()}
    error, blind = [], []
    for name, item in first.items():
        if not item.seen_target:
            alike = [table[t] for t, other in first.items() if other.seen_target and other.bias_type == item.bias_type]
            true, known = _odds(table[name]), _odds(np.mean(alike, 0))
            error.append(np.abs(_odds(np.log(p[names == name].mean(0))) - true).mean())
            blind.append(np.abs(known - true).mean())
    return np.array(error), np.array(blind)


def _odds(log_words: np.ndarray) -> np.ndarray:
    return log_words[:PAIRS] - log_words[PAIRS : 2 * PAIRS]


def _task_errors(reader: PocketReader, design: Design) -> tuple[np.ndarray, np.ndarray]:
    """Return by prompt the size of the error of P(wrong label), the model's and that of the task's mean."""
    sizes, means = [], []
    for task in TASKS:
        prompts = task_prompts(task, design.prompts, design.document_seed)
        p = answers(reader, prompts, False)
        true = np.array([prompt.error for prompt in prompts])
        sizes.append(np.abs(1 - p[np.arange(design.prompts), [prompt.label for prompt in prompts]] - true))
        means.append(np.abs(true - true.mean()))
    return np.concatenate(sizes), np.concatenate(means)


def mera(models: Path, model: str, task: str, mixture: str, draw: int, small: bool) -> dict[str, Any]:
    """Return a cell of MERA's crossed design."""
    return jobs.run_cell(Key(f"pocket, {mixture}", model, task, draw), models, Path(), False, small)


@torch.no_grad()
def fidelity(folders: Mapping[str, Path], design: Design) -> dict[str, Any]:
    """Return ``{model, vector: {measure: [terms]}}`` at strength 1 in the middle layer, towns before trades."""
    arms = {name: (name, name) for name in folders} | {"narrow, base vector": ("narrow", "base")}
    by_arm: dict[str, Any] = {}
    for name, (model, source) in arms.items():
        columns: dict[str, list[float]] = {}
        for kind in BIAS_TYPES:
            subject = Subject(Arm(name, model, source), folders, kind, design.fidelity_seed)
            llm, test = subject.llm, subject.test
            site = llm.sites[declared.depth(LAYER, len(llm.sites))]
            vector = subject.vectors[site]
            shifts = torch.cat([vector[None], directions(design.random, len(vector), float(vector.norm()))])
            base = added(llm, test.contrasts, None, torch.zeros(1, 1))[0]
            rows = rows_of(base, added(llm, test.contrasts, site, shifts), "suppress")
            for measure in ("margin_change", "pattern_nats", "stereotype_change", "unrelated_change"):
                columns.setdefault(measure, []).extend(by_term(rows[measure][:1], test.term)[0])
            random = np.mean(by_term(rows["margin_change"][1:], test.term), 0)
            columns.setdefault("random", []).extend(random.tolist())
            columns.setdefault("norm", []).append(float(vector.norm()))
        by_arm[name] = columns
    return by_arm


def arena(folder: Path, task: str, seed: int, scale: language.LanguageScale) -> dict[str, Any]:
    """Return what every method reaches in one cell of the arena."""
    return language.run(folder, task, seed, scale, entrants(), False)
