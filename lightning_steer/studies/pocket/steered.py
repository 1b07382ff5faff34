"""The card's figures on steering, and on the shape of a pocket model's activations."""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from lightning_steer.data.pocket import module as pocket
from lightning_steer.data.pocket.items import stereotype_items
from lightning_steer.data.pocket.prompts import BehaviourItem, behaviour_items
from lightning_steer.data.pocket.stereotypes import GROUPS
from lightning_steer.data.pocket.text import ITEMS
from lightning_steer.hooks import capture
from lightning_steer.statistics.jackknife import estimate_of_rows, estimates_of_left_out, leave_one_out
from lightning_steer.statistics.kinds import Mean
from lightning_steer.studies.pocket.measures import Figures, share, stereotype_scores
from lightning_steer.studies.pocket.reader import Edits, PocketReader, ReadPart, last, opened

LAYER = 2
"""The layer that vectors are read from and added to; fixed before anything was measured."""
MARGIN = Mean()
COEFFICIENTS = (-1.0, -0.5, 0.0, 0.5, 1.0)


def _added(reader: PocketReader, layer: int, vector: Tensor, coefficient: float) -> Edits:
    """Add a multiple of the vector to all tokens of the layer."""
    return lambda _: {reader.sites[layer]: lambda h: h + coefficient * vector}


def behaviour(reader: PocketReader, name: str, as_chat: bool, seed: int = 0) -> Figures:
    """Measure contrastive activation addition: a vector from 10 topics, its effect on the margin of the 10 others."""
    items = behaviour_items(name, 20, seed, as_chat)
    train, test = items[:200], items[200:]

    def texts(chosen: list[BehaviourItem], positive: bool) -> list[str]:
        return [f"{opened(i.prompt, as_chat)} {i.positive if positive else i.negative}" for i in chosen]

    prompt_length = len(reader.tokenizer(opened(train[0].prompt, as_chat), add_special_tokens=False)["input_ids"])

    def of_continuation(part: ReadPart) -> Tensor:
        positions = torch.arange(part.ids.shape[1])
        inside = (positions >= prompt_length) & (positions < part.lengths[:, None])
        return inside / inside.sum(1, keepdim=True)

    means = [reader.read(texts(train, positive), of_continuation)[:, LAYER].mean(0) for positive in (True, False)]
    vector = means[0] - means[1]
    prompts = [opened(item.prompt, as_chat) for item in test]
    figures: Figures = {}
    margins = []
    for c in COEFFICIENTS:
        edits = _added(reader, LAYER, vector, c)
        logp = [reader.continuations(prompts, [getattr(i, s) for i in test], edits) for s in ("positive", "negative")]
        margins.append((logp[0] - logp[1]).double().numpy())
        figures[f"margin at {c:+g}"] = share(margins[-1], kind=MARGIN)
    true_margins, plain = np.array([item.margin for item in test]), margins[COEFFICIENTS.index(0.0)]
    figures["margin against planted"] = estimate_of_rows(
        lambda i: float(np.corrcoef(plain[i], true_margins[i])[0, 1]), len(test), low=-1, high=1
    )
    steps = [share(b - a, kind=MARGIN) for a, b in pairwise(margins)]
    figures["smallest step"] = min(steps, key=lambda step: step.value)
    return figures


def stereotype_vector(reader: PocketReader, as_chat: bool, seed: int = 0) -> Figures:
    """Measure a stereotype vector from every second group: shares of the preferred sentence in the other groups.

    The vector is the mean difference (stereotype minus anti-stereotype) at the sentence's last token. It is added to
    all tokens, at one layer at a time.
    """
    items = stereotype_items(chat=as_chat, seed=seed)
    groups = [group for names in GROUPS for group in names]
    in_training = [groups.index(item.target.split()[1]) % 2 == 0 for item in items]
    train = [item for item, use in zip(items, in_training, strict=True) if use]
    test = [item for item, use in zip(items, in_training, strict=True) if not use]
    vectors = torch.zeros(len(reader.sites), reader.network.config.hidden_size)
    for sign, side in ((1, "stereotype"), (-1, "anti_stereotype")):
        texts = [f"{opened(item.prompt, as_chat)} {getattr(item, side)}" for item in train]
        vectors += sign * reader.read(texts, last).mean(0)
    cluster, figures = np.array([item.target for item in test]), Figures()
    for layer, c in [(0, 0.0), *((layer, c) for layer in range(len(reader.sites)) for c in (-2.0, -1.0, 1.0, 2.0))]:
        edits = _added(reader, layer, vectors[layer], c)
        preferred = stereotype_scores(reader, test, as_chat, edits).argmax(1)
        setting = f"layer {layer} at {c:+g}" if c else "unsteered"
        for k, side in enumerate(("stereotype", "anti-stereotype", "unrelated")):
            figures[f"{side}, {setting}"] = share(preferred == k, cluster)
    return figures


def anisotropy(base: PocketReader, tuned: PocketReader, as_chat: bool, n: int = 400) -> dict[str, list[Figures]]:
    """Measure by layer the mean cosine of two tokens, and top-1 share and participation ratio of the centred spectrum.

    Both models read the same documents. A document is left out of both at once, so the difference has an interval too.
    """
    seeds = (ITEMS, 7)
    documents = pocket.documents(seeds, 4 * n, float(as_chat))[:n]
    texts = [text if as_chat else f"<bos> {text}" for text, _ in documents]
    weights = torch.from_numpy(np.concatenate([np.ones((1, n)), leave_one_out(np.arange(n))]))
    by_model: dict[str, list[Tensor]] = {}
    for name, reader in (("base", base), ("tuned", tuned)):
        by_model[name] = [_shape(h, weights) for h in _sums(reader, texts)]
    by_model["tuned - base"] = [b - a for a, b in zip(by_model["base"], by_model["tuned"], strict=True)]
    return {name: [_figures(shape.numpy(), n) for shape in shapes] for name, shapes in by_model.items()}


def _figures(shape: np.ndarray, n: int) -> Figures:
    """Return estimates of the three measures from ``[1 + n, 3]``: all documents, then all but one."""
    measures = ("mean cosine", "top-1 share", "participation ratio")
    return dict(zip(measures, estimates_of_left_out(shape[0], shape[1:], n), strict=True))


def _sums(reader: PocketReader, texts: list[str]) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Return by layer and document: number of tokens, sum of unit vectors, sum of vectors, sum of outer products."""
    d, layers = reader.network.config.hidden_size, len(reader.sites)
    count = torch.zeros(len(texts), dtype=torch.float64)
    units, sums = (torch.zeros(layers, len(texts), d, dtype=torch.float64) for _ in range(2))
    outer = torch.zeros(layers, len(texts), d, d, dtype=torch.float64)
    for part in reader.parts(texts):
        with capture(reader.network, reader.sites) as captured:
            reader.network.model(input_ids=part.ids, use_cache=False)
        positions = torch.arange(part.ids.shape[1])
        # the begin mark is unlike all other tokens
        inside = ((positions > 0) & (positions < part.lengths[:, None])).double()[..., None]
        count[part.rows] = inside.sum((1, 2))
        for k, site in enumerate(reader.sites):
            h = captured[site].double() * inside
            units[k, part.rows] = torch.nn.functional.normalize(h, dim=-1).sum(1)
            sums[k, part.rows] = h.sum(1)
            outer[k, part.rows] = torch.einsum("bti,btj->bij", h, h)
    return [(count, units[k], sums[k], outer[k]) for k in range(layers)]


def _shape(document_sums: tuple[Tensor, Tensor, Tensor, Tensor], weights: Tensor) -> Tensor:
    """Return the measures ``[draws, 3]`` for documents with weights ``[draws, n]``."""
    count, units, sums, outer = document_sums
    n = weights @ count
    unit = (weights @ units) / n[:, None]
    cosine = (unit.square().sum(-1) * n - 1) / (n - 1)  # excludes a token's cosine with itself
    mean = (weights @ sums) / n[:, None]
    covariance = torch.einsum("rn,nij->rij", weights, outer) / n[:, None, None] - mean[:, :, None] * mean[:, None]
    spectrum = torch.linalg.eigvalsh(covariance).clamp(min=0)
    total = spectrum.sum(-1)
    return torch.stack([cosine, spectrum[:, -1] / total, total.square() / spectrum.square().sum(-1)], -1)
