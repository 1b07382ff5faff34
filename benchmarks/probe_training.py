"""How fast error probes are trained, as ratios at an equal duality gap, measured side by side in one run.

1. A lasso path of six penalties on a Gram, against scikit-learn's ``lasso_path`` on the same Gram, run to a relative
   duality gap just below 1e-6 (its tolerance is looked up first; ours is below that). Neither pays for the Gram.
2. The whole job - L layers, 5 random 70/30 splits, 6 penalties - against the procedure of the MERA release: one
   scikit-learn ``Lasso`` for each layer, split and penalty, on standardised rows, with its default stopping rule, at
   which it is not converged. Ours pays for everything from the rows on. Extrapolated from few layers, or ``--full``.
3. With a GPU at hand, all layers and splits as one batch, against the CPU.

Rows are made like a language model's residual stream: variances along random axes fall as k^-1.4 (of the standardised
last-token states of a small Llama, d = 64, the first is 256 to 370 times the last, depending on the layer), four
features are a thousand times larger than the others, means are not zero; four fifths of y's variance are linear in h.
One file: the three share these rows, and how an answer's gap is found.

    OMP_NUM_THREADS=1 python benchmarks/probe_training.py           # some minutes
    OMP_NUM_THREADS=1 python benchmarks/probe_training.py --full    # the whole job on all 36 layers, half an hour
"""

import argparse
import os
import platform
import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import sklearn
import torch
from side_by_side import compared, say
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso, lasso_path

from lightning_steer.probes.duality import relative_gap
from lightning_steer.probes.lasso import LassoPath, lasso
from lightning_steer.probes.moments import Moments
from lightning_steer.probes.normal_equations import NormalEquations

ALPHAS = [0.5, 0.25, 0.1, 0.05, 0.01, 0.005]
LAYERS = 36
BLOCKS = 10
"""Random 70/30 splits are unions of ten blocks of rows, so that every block is summed once."""


class Job(NamedTuple):
    """What both procedures are given for one layer."""

    h: np.ndarray
    y: np.ndarray
    block: np.ndarray
    splits: list[list[int]]


def residual_stream(n: int, d: int, seed: int, decay: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows ``[n, d]`` float32 and targets ``[n]``."""
    rng = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(rng.standard_normal((d, d)))
    h = rng.standard_normal((n, d)) * (1 + np.arange(d)) ** (-decay / 2) @ axes.T
    h *= np.sqrt(d) / np.linalg.norm(h, axis=1).mean()
    signal = h[:, rng.choice(d, 32, replace=False)] @ rng.standard_normal(32)
    y = 2 * signal / signal.std() + rng.standard_normal(n) - 1
    scale = np.exp(0.3 * rng.standard_normal(d))
    scale[rng.choice(d, 4, replace=False)] *= 1000
    return ((h + rng.standard_normal(d)) * scale).astype(np.float32), y


def timed(work: Callable) -> tuple[float, Any]:
    """Seconds and result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def show(name: str, seconds: list[float], rest: str) -> None:
    """One line: median and range."""
    span = f"{median(seconds):9.4f} s [{min(seconds):.4f}, {max(seconds):.4f}]"
    print(f"  {name:36s} median {span}  n={len(seconds)}  {rest}")


def ratio(own: list[float], peer: list[float], goal: float | None, told: str) -> None:
    """Theirs over ours."""
    say("probe training", compared(list(zip(peer, own, strict=True))), "" if goal is None else f">= {goal:g}", told)
    print(flush=True)


def path_on_a_gram(n: int, d: int, decay: float, standardise: bool, repeats: int, goal: float | None) -> None:
    """Part 1."""
    rows, y = residual_stream(n, d, 0, decay)
    h, target = torch.from_numpy(rows), torch.from_numpy(y)
    equations = NormalEquations.of(Moments.like(h, target).add(h, target), standardise)
    gram, cross, power = equations.gram[0].numpy(), equations.cross[0].numpy(), float(equations.power[0])

    def theirs(tolerance: float) -> np.ndarray:
        # One pseudo-row for all: it takes no more than n and y'y from them. No copies, no checks: its fastest form.
        x, y = np.zeros((1, d)), np.array([np.sqrt(power)])
        settings = {"precompute": gram, "Xy": cross, "check_input": False}
        return lasso_path(x, y, alphas=ALPHAS, tol=tolerance, max_iter=1_000_000, **settings)[1].T

    def their_gap(tolerance: float) -> float:
        w = torch.from_numpy(theirs(tolerance).copy())
        descent = equations.cross - w @ equations.gram[0]
        return float(relative_gap(w, descent, equations.cross, equations.power, torch.tensor(ALPHAS).double()).max())

    tolerance, looks = 1e-7, 0  # its gap is about proportional to it: aim just below 1e-6
    while (gap := their_gap(tolerance)) > 1e-6 or (gap < 5e-7 and looks < 3):
        tolerance, looks = tolerance * 0.9e-6 / gap, looks + 1
    seconds = [
        (timed(lambda: lasso(equations, ALPHAS))[0], timed(lambda: theirs(tolerance))[0]) for _ in range(repeats)
    ]
    ours_s, theirs_s = [list(s) for s in zip(*seconds, strict=True)]
    path = lasso(equations, ALPHAS)
    print(
        f"lasso path on a Gram: n = {n:,}, d = {d:,}, variances k^-{decay:g}, "
        f"{'standardised' if standardise else 'raw units'}; features used {(path.fit.weight[0] != 0).sum(-1).tolist()}"
    )
    show("coordinate descent and Newton steps", ours_s, f"gap {float(path.gap.max()):.0e}")
    show(f"scikit-learn lasso_path, tol {tolerance:g}", theirs_s, f"gap {gap:.0e}")
    rows_of = f"d {d:,}, variances k^-{decay:g}{'' if standardise else ', raw'}"
    told = f"lasso path at an equal gap just below 1e-6, {rows_of}, scikit-learn over ours"
    ratio(ours_s, theirs_s, goal, told)


def ours(job: Job) -> tuple[float, float]:
    """Worst relative gap, and R2 on held-out rows of the best penalty."""
    h, y, block = (torch.from_numpy(x) for x in (job.h, job.y, job.block))
    moments = Moments.like(h[:256], y[:256], BLOCKS)
    for start in range(0, len(h), 1024):  # as they come from a cache
        part = slice(start, start + 1024)
        moments.add(h[part], y[part], block[part])
    path = lasso(NormalEquations.of(moments.over(job.splits)), ALPHAS)
    held_out = moments.over([[b for b in range(BLOCKS) if b not in split] for split in job.splits])
    return float(path.gap.max()), float(held_out.r2(*path.fit).mean(0).max())


def theirs(job: Job) -> tuple[float, float]:
    """The same of the release's procedure."""
    gap, scores = 0.0, np.zeros((len(job.splits), len(ALPHAS)))
    for s, split in enumerate(job.splits):
        train = np.isin(job.block, split)
        mean, scale = job.h[train].mean(0, dtype=np.float64), job.h[train].std(0, dtype=np.float64)
        x, x_out = (job.h[train] - mean) / scale, (job.h[~train] - mean) / scale
        y, y_out = job.y[train], job.y[~train]
        for a, alpha in enumerate(ALPHAS):
            model = Lasso(alpha).fit(x, y)
            scores[s, a] = model.score(x_out, y_out)
            objective = np.square(y - model.predict(x)).mean() / 2 + alpha * np.abs(model.coef_).sum()
            gap = max(gap, float(model.dual_gap_) / objective)
    return gap, float(scores.mean(0).max())


def whole_job(n: int, d: int, layers: int, decay: float) -> None:
    """Part 2."""
    rng = np.random.default_rng(0)
    total = -(-n * BLOCKS // 7)
    block = rng.permutation(np.arange(total) % BLOCKS)
    splits = [sorted(rng.choice(BLOCKS, 7, replace=False).tolist()) for _ in range(5)]
    ours_s, theirs_s, our_results, their_results = [], [], [], []
    for layer in range(layers):
        job = Job(*residual_stream(total, d, layer, decay), block, splits)
        for work, seconds, results in ((ours, ours_s, our_results), (theirs, theirs_s, their_results)):
            spent, result = timed(lambda: work(job))  # noqa: B023
            seconds.append(spent)
            results.append(result)
    print(
        f"the whole job: {LAYERS} layers x 5 splits x {len(ALPHAS)} penalties, {total:,} rows ({n:,} for training), "
        f"d = {d:,}; seconds are of one layer, {layers} timed"
    )
    for name, seconds, results in (("streamed moments, then ours", ours_s, our_results),
                                   ("release: a Lasso for each", theirs_s, their_results)):  # fmt: skip
        gap, r2 = max(g for g, _ in results), np.mean([r for _, r in results])
        show(name, seconds, f"gap up to {gap:.0e}, held-out R2 {r2:.4f}")
    if layers == LAYERS:
        print(f"  all {LAYERS} layers, run: {sum(ours_s):.0f} s against {sum(theirs_s):.0f} s")
    else:
        print(
            f"  all {LAYERS} layers, extrapolated from {layers}: "
            f"{LAYERS * np.mean(ours_s):.0f} s against {LAYERS * np.mean(theirs_s):.0f} s"
        )
    what = f"{LAYERS} layers x 5 splits x 6 penalties, d {d:,}, {layers} layers timed"
    told = f"{what}: one unconverged Lasso for each over ours"
    ratio(ours_s, theirs_s, 3, told)


def on_a_gpu(n: int, d: int, layers: int, decay: float, repeats: int) -> None:
    """Part 3."""
    if not torch.cuda.is_available():
        print("no GPU at hand: the batched solver's speed there is not measured\n")
        return
    rows, y = zip(*(residual_stream(n, d, layer, decay) for layer in range(layers)), strict=True)
    h, target = torch.from_numpy(np.stack(rows)), torch.from_numpy(np.stack(y))
    here = NormalEquations.of(Moments.like(h, target).add(h, target))
    there = NormalEquations(*(x.cuda() for x in here))

    def solve_there() -> LassoPath:
        path = lasso(there, ALPHAS)
        torch.cuda.synchronize()
        return path

    solve_there()  # CUDA's own start-up
    seconds = [(timed(solve_there)[0], timed(lambda: lasso(here, ALPHAS))[0]) for _ in range(repeats)]
    gpu_s, cpu_s = [list(s) for s in zip(*seconds, strict=True)]
    print(f"{layers} problems x {len(ALPHAS)} penalties in one batch, d = {d:,}, {torch.cuda.get_device_name()}")
    show("semismooth Newton, GPU", gpu_s, f"gap {float(solve_there().gap.max()):.0e}")
    show(f"coordinate descent, {torch.get_num_threads()} CPU threads", cpu_s, "")
    ratio(gpu_s, cpu_s, 20, f"{layers} lasso paths, d {d:,}, CPU over {torch.cuda.get_device_name()}")


def main() -> None:
    """Run the three parts."""
    parser = argparse.ArgumentParser(description="Speed of training probes, in ratios.")
    parser.add_argument("--rows", type=int, default=2100, help="rows for training")
    parser.add_argument("--width", type=int, default=2048, help="size of the residual stream")
    parser.add_argument("--layers", type=int, default=1, help=f"layers of the whole job to time, of {LAYERS}")
    parser.add_argument("--repeats", type=int, default=5, help="turns on the large Gram; thrice as many on the small")
    parser.add_argument("--full", action="store_true", help=f"time all {LAYERS} layers")
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)  # of the release's procedure; gaps are printed
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
        f"{torch.get_num_threads()} threads; scikit-learn {sklearn.__version__}, torch {torch.__version__}\n"
    )
    small, large = 256, options.width
    for decay, standardise, goal in ((1.4, True, 3), (1.0, True, None), (2.0, True, None), (1.4, False, None)):
        path_on_a_gram(options.rows, small, decay, standardise, 3 * options.repeats, goal)
    path_on_a_gram(options.rows, large, 1.4, True, options.repeats, 15)
    whole_job(options.rows, large, LAYERS if options.full else options.layers, 1.4)
    on_a_gpu(options.rows, large, 5 * LAYERS if options.full else 20, 1.4, options.repeats)


if __name__ == "__main__":
    main()
