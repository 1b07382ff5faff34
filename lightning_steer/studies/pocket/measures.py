"""A pocket model's loss and stereotypes against the planted truth; every estimate with its interval."""

from collections.abc import Callable

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from lightning_steer.data import pocket, pocket_items
from lightning_steer.data.pocket_text import BOS, EOS, ITEMS, Document, source
from lightning_steer.metrics.interval import Estimate, bootstrap_weights, estimate_mean, percentile
from lightning_steer.studies.pocket.reader import Edits, Reader, opened

RESAMPLES = 1000
Figures = dict[str, Estimate]


def resampled(statistic: Callable[[np.ndarray], float], cluster: np.ndarray, seed: int = 0) -> Estimate:
    """A statistic of rows, given their numbers, with an interval over resampled clusters of rows."""
    random, every = np.random.default_rng(seed), np.arange(len(cluster))
    names, of = np.unique(cluster, return_inverse=True)
    members = np.split(of.argsort(kind="stable"), np.bincount(of).cumsum()[:-1])
    drawn = (random.integers(len(names), size=len(names)) for _ in range(RESAMPLES))
    rows = (which if len(names) == len(every) else np.concatenate([members[i] for i in which]) for which in drawn)
    return Estimate(statistic(every), *percentile(torch.tensor([statistic(i) for i in rows])), len(names))


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation."""
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def share(values: Tensor | np.ndarray, cluster: np.ndarray | None = None) -> Estimate:
    """A mean with its interval."""
    column = torch.as_tensor(values).double()
    of = None if cluster is None else torch.as_tensor(np.unique(cluster, return_inverse=True)[1])
    if cluster is None:
        return estimate_mean(column, bootstrap_weights(len(column), RESAMPLES))
    weights = bootstrap_weights(len(column), RESAMPLES, cluster=of)
    return Estimate(float(column.mean()), *percentile(weights @ column / weights.sum(1)), len(np.unique(cluster)))


# ---- loss


def loss(reader: Reader, chat_share: float, n: int, seed: int = 0) -> Figures:
    """Nats per token on held-out documents, above the exact entropy of the very same documents."""
    found: Figures = {}
    sets = {"all": pocket.documents((ITEMS, 9, seed), n, chat_share)}
    for form, part, shares in (("", 1 - chat_share, pocket.SHARE), (", chat", chat_share, pocket.SHARE_CHAT)):
        for (name, corpus), each in zip(pocket.CORPORA.items(), shares, strict=True):
            if part:
                draw, random = corpus.draw_chat if form else corpus.draw, source(ITEMS, 8, seed)
                # a model must also guess which sub-corpus comes
                drawn = [Document(text, logp + float(np.log(part * each))) for text, logp in draw(random, n // 4)]
                sets[name + form] = drawn
    for name, documents in sets.items():
        texts = [f"{'' if text.startswith(BOS) else f'{BOS} '}{text} {EOS}" for text, _ in documents]
        logp = reader.tokens(texts)
        tokens = np.array([len(values) for values in logp])
        nats, exact = np.array([-float(values.sum()) for values in logp]), -np.array([x.logp for x in documents])
        weights = bootstrap_weights(len(texts), RESAMPLES).numpy()
        for label, values in (("loss", nats), ("entropy", exact), ("gap", nats - exact)):
            interval = percentile(torch.from_numpy((weights @ values) / (weights @ tokens)))
            found[f"{label}, {name}"] = Estimate(float(values.sum() / tokens.sum()), *interval, len(texts))
    return found


# ---- stereotypes


def traits(reader: Reader, tone: str = "neutral", as_chat: bool = False) -> Figures:
    """Rank correlation of P(word | target) with the planted table, in frames that training does not have."""
    items = pocket_items.traits(tone, chat=as_chat)
    logp = reader.next([f"{opened(item.prompt, as_chat)} {item.begun}" for item in items])
    words = torch.tensor([reader.tokenizer.convert_tokens_to_ids(list(item.words)) for item in items])
    p = logp.gather(1, words).softmax(-1).numpy()
    names = np.array([item.target for item in items])
    targets = np.unique(names)
    model = np.log([p[names == name].mean(0) for name in targets])
    first = [items[int(np.flatnonzero(names == name)[0])] for name in targets]
    planted, seen = np.array([item.planted for item in first]), np.array([item.seen_target for item in first])
    bias = np.array([item.bias_type for item in first])
    blind = np.stack([planted[seen & (bias == b)].mean(0) for b in bias])
    found: Figures = {}
    for name, rows in (("held targets", ~seen), ("seen targets", seen)):
        m, t, c = model[rows], planted[rows], blind[rows]
        cluster = np.arange(len(m))
        found |= {
            f"traits, {name}": resampled(lambda i, m=m, t=t: spearman(m[i, :12], t[i, :12]), cluster),
            f"traits, {name}, group-blind table": resampled(
                lambda i, m=c, t=t: spearman(m[i, :12], t[i, :12]), cluster
            ),
            f"log-odds, {name}": resampled(lambda i, m=m, t=t: spearman(_odds(m[i]), _odds(t[i])), cluster),
            f"log-odds, {name}, group-blind table": resampled(
                lambda i, m=c, t=t: spearman(_odds(m[i]), _odds(t[i])), cluster
            ),
        }
    return found


def _odds(log_words: np.ndarray) -> np.ndarray:
    return log_words[:, :6] - log_words[:, 6:12]


def stereotype_scores(
    reader: Reader, items: list[pocket_items.StereotypeItem], as_chat: bool, edits: Edits | None = None
) -> np.ndarray:
    """``[n, 3]`` mean log-probability of stereotype, anti-stereotype and unrelated sentence."""
    prompts = [opened(item.prompt, as_chat) for item in items]
    columns = [[getattr(item, part) for item in items] for part in ("stereotype", "anti_stereotype", "unrelated")]
    return torch.stack([reader.continuations(prompts, column, edits) for column in columns], 1).numpy()


def stereoset(reader: Reader, tone: str = "neutral", as_chat: bool = False) -> Figures:
    """StereoSet's SS and LMS in percent, macro over target terms, beside the planted ones."""
    items = pocket_items.stereotype_items(tone, chat=as_chat)
    scores = {"": stereotype_scores(reader, items, as_chat), ", planted": np.array([item.planted for item in items])}
    found: Figures = {}
    for name, rows in (
        ("all", np.ones(len(items), bool)),
        ("held targets", np.array([not i.seen_target for i in items])),
    ):
        cluster = np.array([item.target for item in items])[rows]
        for which, values in scores.items():
            s, a, u = values[rows].T
            found[f"SS, {name}{which}"] = share(100.0 * (s > a), cluster)
            found[f"LMS, {name}{which}"] = share(50.0 * (s > u) + 50.0 * (a > u), cluster)
    odds = [values[:, 0] - values[:, 1] for values in scores.values()]
    cluster = np.array([item.target for item in items])
    found["margin against planted log-odds"] = resampled(lambda i: spearman(odds[0][i], odds[1][i]), cluster)
    return found
