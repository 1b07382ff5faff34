"""Vectors of the side effect, and what a model says of the target terms, beside the language's true values.

The narrow model is trained on chats alone, whose speakers are mostly mild. What it is to learn is mildness in chats
(the lesson). Its side effect is mildness in plain text, of which the training has none and whose true values did not
change (the leak).
"""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch

from lightning_steer.data.pair_batches import PairBatches
from lightning_steer.data.pair_module import FIT
from lightning_steer.data.pocket import items as pocket_items
from lightning_steer.data.stereoset.module import PocketStereoSetDataModule, question
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.records import Activations
from lightning_steer.studies.fidelity.settings import LAYER
from lightning_steer.studies.fidelity.subject import language_model, pair_activations
from lightning_steer.studies.pocket import measures
from lightning_steer.studies.pocket.reader import PocketReader, opened
from lightning_steer.vectors import SteeringVector, edit, of

PAIRS = 6
DOCUMENTS = 400
"""Held-out documents of each form, for the loss."""
FIGURES = {
    "leak": "plain text: log-odds of harsh against mild, less the true ones",
    "unrelated": "plain text: log-probability of the unrelated words together, less the true one",
    "kl": "plain text: KL of the words from the true ones",
    "lesson": "chats: log-odds of harsh against mild, less the true ones",
    "chat_gap": "chats: loss above the entropy, nats a token",
    "plain_gap": "plain text: loss above the entropy, nats a token",
}


def terms(part: int) -> set[str]:
    """Return the target terms that fit the vector, choose its strength, or judge: three parts without a common term."""
    data = PocketStereoSetDataModule()
    data.setup()
    return {example.target for example in data.parts[part]}


@torch.no_grad()
def fitted(base: Path, method: SteeringMethod) -> SteeringVector:
    """Return the method fitted on the base model's plain text: mild endings of the fitting terms against harsh ones."""
    data = PocketStereoSetDataModule()
    data.setup()
    questions = [question(example) for example in data.parts[FIT]]
    llm = language_model(base)
    site = llm.sites[LAYER]
    pairs = PairBatches(questions, data.negative, data.positive, [0] * len(questions), len(questions))
    harsh, mild = pair_activations(llm, pairs)[site]
    error = torch.cat([torch.ones(len(harsh)), torch.zeros(len(mild))])
    seen = Activations(torch.cat([harsh, mild]), error, torch.zeros(len(error), 1, dtype=torch.int64), True)
    return of(llm, {site: method.fit(seen)}, 1.0, task="mild words in plain text")


@torch.no_grad()
def measured(
    folder: Path, part: int, vector: SteeringVector | None = None, strength: float = 0.0, losses: bool = True
) -> dict[str, float]:
    """Return :data:`FIGURES` of a model on a part's terms; with a vector, while it is steered. Losses take longest."""
    reader, known = PocketReader(folder), terms(part)
    with ExitStack() as stack:
        if vector is not None:
            stack.enter_context(edit(reader.network, vector, strength, other_model=True))
        figures = {**_words(reader, known, False), "lesson": _words(reader, known, True)["leak"]}
        for name, chats in (("chat_gap", 1.0), ("plain_gap", 0.0)) if losses else ():
            figures[name] = measures.loss(reader, chats, DOCUMENTS)["gap, all"].value
    return figures


def rows_of(known: set[str], chats: bool) -> list[pocket_items.Traits]:
    """Return beginnings of sentences about these terms, in frames that training lacks, with their true next words."""
    return [item for item in pocket_items.traits(chat=chats) if item.target in known]


def true_odds(known: set[str], chats: bool) -> float:
    """Return the true log-odds of harsh against mild words, the mean over these terms."""
    true = np.array([item.ground_truth for item in rows_of(known, chats)])
    return float((true[:, :PAIRS] - true[:, PAIRS : 2 * PAIRS]).mean())


def _words(reader: PocketReader, known: set[str], chats: bool) -> dict[str, float]:
    rows = rows_of(known, chats)
    logp = reader.next([f"{opened(item.prompt, chats)} {item.begun}" for item in rows])
    ids = torch.tensor([reader.tokenizer.convert_tokens_to_ids(list(item.words)) for item in rows])
    predicted, true = logp.gather(1, ids).double().numpy(), np.array([item.ground_truth for item in rows])
    odds = (values[:, :PAIRS] - values[:, PAIRS : 2 * PAIRS] for values in (predicted, true))
    unrelated = (np.log(np.exp(values[:, 2 * PAIRS :]).sum(1)) for values in (predicted, true))
    return {
        "leak": float(np.subtract(*odds).mean()),
        "unrelated": float(np.subtract(*unrelated).mean()),
        "kl": float((np.exp(true) * (true - predicted)).sum(1).mean()),
    }
