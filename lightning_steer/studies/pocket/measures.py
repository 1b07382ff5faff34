"""A pocket model's loss and stereotypes against the planted truth; every estimate with its interval."""

from functools import partial

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from lightning_steer.data.pocket import items as pocket_items
from lightning_steer.data.pocket import module as pocket
from lightning_steer.data.pocket.text import BOS, EOS, ITEMS, Document, source
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.jackknife import estimate_of_rows
from lightning_steer.statistics.kinds import Kind, Mean, Share, Smooth
from lightning_steer.studies.pocket.reader import Edits, PocketReader, opened

Figures = dict[str, Estimate]


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Return Spearman's rank correlation."""
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


YES = Share()


def share(values: Tensor | np.ndarray, cluster: np.ndarray | None = None, kind: Kind = YES) -> Estimate:
    """Return a share, or another mean, with its interval."""
    return kind.estimate(np.asarray(values, dtype=np.float64), cluster)[0]


def _ratio(weights: np.ndarray, total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return (weights @ total) / (weights @ count)


PER_TOKEN, PERCENT = Smooth(_ratio), Mean(0, 100)


# ---- loss


def loss(reader: PocketReader, chat_share: float, n: int, seed: int = 0) -> Figures:
    """Measure nats per token on held-out documents, and their excess over the documents' exact entropy."""
    figures: Figures = {}
    documents_by_set = {"all": pocket.documents((ITEMS, 9, seed), n, chat_share)}
    for form, portion, shares in (("", 1 - chat_share, pocket.SHARE), (", chat", chat_share, pocket.SHARE_CHAT)):
        for (name, corpus), weight in zip(pocket.CORPORA.items(), shares, strict=True):
            if portion:
                draw, random = corpus.draw_chat if form else corpus.draw, source(ITEMS, 8, seed)
                # a model must also predict the sub-corpus
                drawn = [Document(text, logp + float(np.log(portion * weight))) for text, logp in draw(random, n // 4)]
                documents_by_set[name + form] = drawn
    for name, documents in documents_by_set.items():
        texts = [f"{'' if text.startswith(BOS) else f'{BOS} '}{text} {EOS}" for text, _ in documents]
        logp = reader.tokens(texts)
        tokens = np.array([len(values) for values in logp])
        nats, exact = np.array([-float(values.sum()) for values in logp]), -np.array([x.logp for x in documents])
        for label, values in (("loss", nats), ("entropy", exact), ("gap", nats - exact)):
            figures[f"{label}, {name}"] = PER_TOKEN.estimate(values, tokens)[0]
    return figures


# ---- stereotypes


def traits(reader: PocketReader, tone: str = "neutral", as_chat: bool = False) -> Figures:
    """Measure the rank correlation of P(word | target) with the planted table, in frames unseen in training."""
    items = pocket_items.traits(tone, chat=as_chat)
    logp = reader.next([f"{opened(item.prompt, as_chat)} {item.begun}" for item in items])
    words = torch.tensor([reader.tokenizer.convert_tokens_to_ids(list(item.words)) for item in items])
    p = logp.gather(1, words).softmax(-1).numpy()
    names = np.array([item.target for item in items])
    targets = np.unique(names)
    model = np.log([p[names == name].mean(0) for name in targets])
    first = [items[int(np.flatnonzero(names == name)[0])] for name in targets]
    true, seen = np.array([item.ground_truth for item in first]), np.array([item.seen_target for item in first])
    bias = np.array([item.bias_type for item in first])
    blind = np.stack([true[seen & (bias == b)].mean(0) for b in bias])
    figures: Figures = {}
    for name, rows in (("held targets", ~seen), ("seen targets", seen)):
        m, t, c = model[rows], true[rows], blind[rows]
        ranks, n = partial(estimate_of_rows, low=-1, high=1), len(m)
        figures |= {
            f"traits, {name}": ranks(lambda i, m=m, t=t: spearman(m[i, :12], t[i, :12]), n),
            f"traits, {name}, group-blind table": ranks(lambda i, m=c, t=t: spearman(m[i, :12], t[i, :12]), n),
            f"log-odds, {name}": ranks(lambda i, m=m, t=t: spearman(_odds(m[i]), _odds(t[i])), n),
            f"log-odds, {name}, group-blind table": ranks(lambda i, m=c, t=t: spearman(_odds(m[i]), _odds(t[i])), n),
        }
    return figures


def _odds(log_words: np.ndarray) -> np.ndarray:
    return log_words[:, :6] - log_words[:, 6:12]


def stereotype_scores(
    reader: PocketReader, items: list[pocket_items.StereotypeItem], as_chat: bool, edits: Edits | None = None
) -> np.ndarray:
    """Return mean log-probabilities ``[n, 3]`` of stereotype, anti-stereotype and unrelated sentence."""
    prompts = [opened(item.prompt, as_chat) for item in items]
    columns = [[getattr(item, side) for item in items] for side in ("stereotype", "anti_stereotype", "unrelated")]
    return torch.stack([reader.continuations(prompts, column, edits) for column in columns], 1).numpy()


def stereoset(reader: PocketReader, tone: str = "neutral", as_chat: bool = False) -> Figures:
    """Measure StereoSet's SS and LMS in percent, averaged over target terms, beside the planted values."""
    items = pocket_items.stereotype_items(tone, chat=as_chat)
    scores = {
        "": stereotype_scores(reader, items, as_chat),
        ", planted": np.array([item.ground_truth for item in items]),
    }
    figures: Figures = {}
    for name, rows in (
        ("all", np.ones(len(items), bool)),
        ("held targets", np.array([not i.seen_target for i in items])),
    ):
        cluster = np.array([item.target for item in items])[rows]
        for suffix, values in scores.items():
            s, a, u = values[rows].T
            figures[f"SS, {name}{suffix}"] = share(100.0 * (s > a), cluster, PERCENT)
            figures[f"LMS, {name}{suffix}"] = share(50.0 * (s > u) + 50.0 * (a > u), cluster, PERCENT)
    odds = [values[:, 0] - values[:, 1] for values in scores.values()]
    cluster = np.array([item.target for item in items])
    figures["margin against planted log-odds"] = estimate_of_rows(
        lambda i: spearman(odds[0][i], odds[1][i]), len(items), cluster, -1, 1
    )
    return figures
