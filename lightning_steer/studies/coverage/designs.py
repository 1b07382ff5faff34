"""Simulated rows whose true values are known: S data sets at once."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.stats import norm as normal


def layout(clusters: int, sizes: str) -> NDArray:
    """Return ``[n]`` the cluster of each row: ten rows each, with one that is larger, or sizes spread from 2 to 30."""
    rows = np.full(clusters, 10) if sizes != "2 to 30" else np.linspace(2, 30, clusters).round().astype(int)
    if sizes == "one of a third":
        rows[0] = 5 * (clusters - 1)
    elif sizes == "one of 60 %":
        rows[0] = 15 * (clusters - 1)
    return np.repeat(np.arange(clusters), rows)


def cluster_chances(random: Generator, chances: NDArray, icc: float, shape: tuple[int, int]) -> NDArray:
    """Return ``[T, S, k]`` each cluster's own chances around ``chances [k]`` (Dirichlet with this ICC)."""
    if icc == 0:
        return np.broadcast_to(chances, (*shape, len(chances)))
    drawn = random.standard_gamma(chances * (1 - icc) / icc, (*shape, len(chances)))
    total = drawn.sum(-1, keepdims=True)
    # gammas of a tiny shape may all underflow; then all rows of the cluster are of one kind
    single_kind = np.eye(len(chances))[random.choice(len(chances), shape, p=chances)]
    return np.where(total > 0, drawn / np.maximum(total, 1e-300), single_kind)


def shares(random: Generator, p: float, icc: float, cluster: NDArray, sets: int) -> NDArray:
    """Return ``[n, S]`` of 0 and 1 with mean p."""
    chances = cluster_chances(random, np.array([p, 1 - p]), icc, (int(cluster.max()) + 1, sets))[..., 0]
    return (random.random((len(cluster), sets)) < chances[cluster]).astype(float)


def halves(random: Generator, p: float, icc: float, cluster: NDArray, sets: int) -> NDArray:
    """Return ``[n, S]`` of 0, 1/2 and 1 with mean p, such as outcomes with ties."""
    chances = cluster_chances(random, np.array([p, 1 - p]), icc, (int(cluster.max()) + 1, sets))[..., 0][cluster]
    return (random.random((2, *chances.shape)) < chances).mean(0)


def errors(random: Generator, p: float, icc: float, cluster: NDArray, sets: int) -> NDArray:
    """Return ``[n, S]`` errors in (0, 1): some .003 of right answers and .97 of wrong ones, of which there are p."""
    wrong = shares(random, p, icc, cluster, sets) > 0
    return np.where(wrong, 1 - random.beta(1, 30, wrong.shape), random.beta(1, 300, wrong.shape))


def mean_error(p: float) -> float:
    """Return the mean of :func:`errors`."""
    return p * 30 / 31 + (1 - p) / 301


def changes(random: Generator, gains: float, harms: float, icc: float, cluster: NDArray, sets: int) -> NDArray:
    """Return ``[n, S]`` of -1, 0 and 1."""
    chances = np.array([gains, harms, 1 - gains - harms])
    possible = chances > 0
    p = np.zeros((int(cluster.max()) + 1, sets, 3))
    p[..., possible] = cluster_chances(random, chances[possible], icc, p.shape[:2])
    p = p[cluster]
    draw = random.random(p.shape[:2])
    return (draw < p[..., 0]).astype(float) - ((draw >= p[..., 0]) & (draw < p[..., 0] + p[..., 1]))


def graded_changes(random: Generator, gains: float, harms: float, icc: float, cluster: NDArray, sets: int) -> NDArray:
    """Return ``[n, S]`` in [-1, 1]: changes of a size between 0 and 1, half of the mean."""
    signs = changes(random, gains, harms, icc, cluster, sets)
    return signs * random.random(signs.shape)


def reals(random: Generator, skewed: bool, icc: float, cluster: NDArray, sets: int) -> NDArray:
    """Return ``[n, S]`` with mean 1, normal or (of clusters and rows) exponential."""
    shape = (int(cluster.max()) + 1, sets), (len(cluster), sets)
    of_cluster, of_row = ((random.standard_exponential(s) - 1 if skewed else random.standard_normal(s)) for s in shape)
    return 1 + np.sqrt(icc) * of_cluster[cluster] + np.sqrt(1 - icc) * of_row


def many(random: Generator, law: str, n: int, sets: int) -> NDArray:
    """Return ``[n, S]`` independent values of a law, whose mean is :data:`MEANS`."""
    shape = n, sets
    if law == "normal":
        return random.standard_normal(shape)
    if law == "exponential":
        return random.standard_exponential(shape)
    name, *numbers = law.split()
    if name == "lognormal":
        return np.exp(float(numbers[0]) * random.standard_normal(shape))
    if name == "Beta":
        return random.beta(float(numbers[0]), float(numbers[1]), shape)
    far = random.random(shape) < 0.1
    if name == "failures":
        return np.where(far, random.uniform(0, 0.5, shape), random.beta(30, 2, shape))
    return np.where(far, 5, 0) + 0.3 * random.standard_normal(shape)


TENTH = "a tenth 5 away"
MEANS = {"normal": 0.0, "exponential": 1.0, "lognormal 0.5": np.exp(0.125), "lognormal 1": np.exp(0.5), TENTH: 0.5,
         "failures of a tenth": 0.1 * 0.25 + 0.9 * 30 / 32,
         "Beta 20 0.5": 20 / 20.5, "Beta 50 0.3": 50 / 50.3}  # fmt: skip
"""By law. Failures: a tenth of the units lies anywhere below .5, the others near .94."""
VARIANCES = {"exponential": 1.0, "lognormal 0.5": (np.exp(0.25) - 1) * np.exp(0.25),
             "lognormal 1": (np.exp(1) - 1) * np.exp(1), TENTH: 0.09 * 25 + 0.09}  # fmt: skip


def skewed_clusters(random: Generator, law: str, clusters: int, sets: int) -> NDArray:
    """Return ``[10 T, S]`` with mean 1: ten normal rows in each of T clusters, whose means (ICC .6) have a law."""
    of_cluster = (many(random, law, clusters, sets) - MEANS[law]) / np.sqrt(VARIANCES[law])
    return (
        1 + np.sqrt(0.6) * np.repeat(of_cluster, 10, 0) + np.sqrt(0.4) * random.standard_normal((10 * clusters, sets))
    )


def drifts(random: Generator, law: str, scale: float, n: int, sets: int, tokens: int = 1) -> NDArray:
    """Return ``[n * tokens, S]`` probability lost, ``1 - exp(-KL)``, of the tokens of n texts with a long tail of KL.

    The KL of a token is that of its text, whose median is ``scale``, times an exponential if there are several tokens.
    """
    kl = scale * tail(law, random.random((n, sets)))
    if tokens > 1:
        kl = np.repeat(kl, tokens, 0)
        kl *= random.standard_exponential(kl.shape)
    return -np.expm1(-kl)


def tail(law: str, u: NDArray) -> NDArray:
    """Return the quantiles ``u`` of a law with median 1: ``lognormal SIGMA`` or ``Pareto ALPHA``."""
    name, shape = law.split()
    if name == "lognormal":
        return np.exp(float(shape) * normal.ppf(u))
    return ((1 - u) ** (-1 / float(shape)) - 1) / (2 ** (1 / float(shape)) - 1)


def mean_drift(law: str, scale: float, tokens: int = 1) -> float:
    """Return the mean of :func:`drifts`, by the midpoint rule over the quantiles of the law."""
    kl = scale * tail(law, (np.arange(2_000_000) + 0.5) / 2_000_000)
    return float((-np.expm1(-kl) if tokens == 1 else kl / (1 + kl)).mean())


def answer_cells(classes: int, base: float, gains: float, harms: float) -> NDArray:
    """Return ``[K, K, K]`` chances of truth x before x after; wrong answers are even over the other classes."""
    truth = np.array([0.7, 0.3]) if classes == 2 else np.arange(classes, 0, -1) / np.arange(1, classes + 1).sum()
    right, wrong = np.eye(classes), (1 - np.eye(classes)) / (classes - 1)
    unchanged = np.einsum("ta,ab->tab", wrong, np.eye(classes))
    cells = (base - harms) * np.einsum("ta,tb->tab", right, right) + (1 - base - gains) * unchanged
    cells = cells + harms * np.einsum("ta,tb->tab", right, wrong) + gains * np.einsum("ta,tb->tab", wrong, right)
    return truth[:, None, None] * cells


def candidates(random: Generator, churn: float, effect: float, k: int, n: int, sets: int) -> NDArray:
    """Return ``[S, K, n]`` int8 changes; neighbouring candidates treat 7 of 10 rows alike."""
    draw = random.random((sets, n), dtype=np.float32)
    rows = np.empty((sets, k, n), np.int8)
    for i in range(k):
        if i:
            fresh = random.random((sets, n), dtype=np.float32)
            draw = np.where(random.random((sets, n), dtype=np.float32) < 0.7, draw, fresh)
        rows[:, i] = (draw < (churn + effect) / 2).astype(np.int8) - (draw > 1 - (churn - effect) / 2)
    return rows


def clustered_candidates(
    random: Generator, churn: float, effect: float, icc: float, k: int, clusters: int, sets: int
) -> NDArray:
    """Return ``[S, K, T]`` means of clusters of ten rows; neighbouring candidates treat 7 of 10 clusters alike."""
    chances, means = np.array([(churn + effect) / 2, (churn - effect) / 2, 1 - churn]), []
    for i in range(k):
        p = cluster_chances(random, chances, icc, (sets, clusters))
        drawn = random.multinomial(10, p / p.sum(-1, keepdims=True))
        mean = (drawn[..., 0] - drawn[..., 1]) / 10
        means.append(np.where(random.random((sets, clusters)) < 0.7, means[-1], mean) if i else mean)
    return np.stack(means, 1)
