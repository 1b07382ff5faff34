"""What is measured on the device: ratios of runs that alternate, and absolute times."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import side_by_side
import torch
from gpu_parts.laws import PENALTIES, problems
from gpu_parts.models import Form, Row, free, of_words
from search import STRENGTHS, coarse, search_of
from side_by_side import Timing, by_turns, seconds, sentence

from lightning_steer.cache import Build
from lightning_steer.hooks import edit
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import MultipleChoice, batches, collate
from lightning_steer.plan.blank import Alive, Blank
from lightning_steer.plan.planning import size
from lightning_steer.probes import semismooth_newton
from lightning_steer.probes.lasso import lasso
from lightning_steer.probes.moments import Moments
from lightning_steer.probes.normal_equations import NormalEquations
from lightning_steer.workflows.search import Search


def dtype() -> torch.dtype:
    """The precision of what is timed."""
    return torch.bfloat16 if side_by_side.DEVICE == "cuda" else torch.float32


def turn(first: Callable[[], float], second: Callable[[], float], limit: float, name: str) -> Timing:
    """Time two ways by turns, as often as a limit in seconds allows, at most seven times."""
    once = first() + second()
    return by_turns(first, second, int(min(7, max(1, limit / once - 2))), name)


def additive(llm: LLM) -> dict[str, Any]:
    """A vector added to the output of every block."""
    vector = torch.randn(llm.width(""), generator=torch.Generator().manual_seed(0)).to(llm.device, llm.model.dtype)
    return {f"{llm.blocks}.{i}": lambda h: h + 0.1 * vector for i in range(llm.decoder.depth)}


def smaller(form: Form) -> tuple[str, dict[str, int]]:
    """The first model, and its name."""
    return next(iter(form.models.items()))


def cache(form: Form) -> Iterator[Row]:
    """A cache of all layers, recorded and written, against the bare forward."""
    name, architecture = smaller(form)
    llm = of_words(architecture, dtype(), list(range(architecture["num_hidden_layers"])))
    texts = [sentence(i, 20, 200) for i in range(form.texts)]
    rows = llm.rows([MultipleChoice(text) for text in texts])
    prepared = [collate(part, llm.pad, llm.model.dtype, llm.device) for part in batches(rows, llm.tokens_per_batch)]
    with tempfile.TemporaryDirectory() as folder:
        numbers = iter(range(100))

        @torch.inference_mode()
        def forward() -> None:
            for batch in prepared:
                llm.model.base_model(input_ids=batch.ids, use_cache=False)

        def recording() -> float:
            build = Build(llm, texts, Path(folder) / str(next(numbers)))
            build.folder.mkdir()
            return seconds(lambda: (build.shard(0), build.finish()))

        timing = turn(lambda: seconds(forward), recording, 15, "cache")
    tokens = sum(len(row.ids) for row in rows)
    what = f"{name}, cache of all layers: share of the bare forward's throughput"
    yield Row("cache", what, f"{timing.ratio:.3f} ({timing.low:.3f} to {timing.high:.3f})", timing.n)
    yield Row("cache", f"{name}, recorded", f"{tokens / timing.second:,.0f} tokens/s", timing.n)


def sweep(form: Form) -> Iterator[Row]:
    """Nine strengths as rows of one batch against nine passes, and hooks against a plain forward."""
    name, architecture = smaller(form)
    llm = of_words(architecture, dtype(), 2 * architecture["num_hidden_layers"] // 3 - 1)
    questions = [MultipleChoice(sentence(i, 15, 40), (f" w{i}", f" w{i + 7} w{i}")) for i in range(6)]
    vector = torch.randn(llm.width(""), generator=torch.Generator().manual_seed(0)).to(llm.device, llm.model.dtype)
    strengths = torch.linspace(-2, 2, 9, device=llm.device, dtype=llm.model.dtype)
    site, column = llm.sites[0], strengths.view(-1, 1, 1, 1)

    @torch.inference_mode()
    def together() -> None:
        llm.scores(questions, {site: lambda h: h + column * vector}, 9)

    @torch.inference_mode()
    def one_by_one() -> None:
        for strength in strengths:
            llm.scores(questions, {site: lambda h, s=strength: h + s * vector})

    timing = turn(lambda: seconds(one_by_one), lambda: seconds(together), 10, "sweep")
    told = f"{timing.ratio:.2f} ({timing.low:.2f} to {timing.high:.2f}); {1e3 * timing.second:.1f} ms"
    yield Row("sweep", f"{name}, 9 passes over 9 strengths in one", told, timing.n)
    ids, edits = torch.zeros(1, 64, dtype=torch.int64, device=llm.device), additive(llm)

    @torch.inference_mode()
    def plain() -> None:
        llm.model(ids, use_cache=False)

    def steered() -> None:
        with llm.steered(edits):
            plain()

    timing = turn(lambda: seconds(steered), lambda: seconds(plain), 5, "hooks")
    told = f"{timing.ratio:.3f} ({timing.low:.3f} to {timing.high:.3f})"
    yield Row("hooks", f"{name}, a vector at every layer over a plain forward, 64 tokens", told, timing.n)


def search(form: Form) -> Iterator[Row]:
    """All layers and nine strengths, as a whole grid and from coarse to fine."""
    for name, architecture in form.models.items():
        free()
        try:
            llm = of_words(architecture, dtype(), list(range(architecture["num_hidden_layers"])))
        except torch.OutOfMemoryError:
            yield Row("search", name, "does not fit into the memory that is free")
            continue
        yield from _searched(name, llm)
        del llm


def _searched(name: str, llm: LLM) -> Iterator[Row]:
    cells = f"{name}, {llm.decoder.depth} layers x {len(STRENGTHS)} strengths"
    made: list[Search] = []
    started = seconds(lambda: made.append(search_of(llm)))
    yield Row("search", f"{name}, all layers read and fitted, baseline scored", f"{started:.2f} s")
    yield Row("search", f"{cells}, whole grid", f"{seconds(lambda: made[0].grid(STRENGTHS)):.2f} s")
    yield Row("search", f"{cells}, from coarse to fine", f"{seconds(lambda: coarse(made[0])):.2f} s")


def probes(form: Form) -> Iterator[Row]:
    """Lasso paths of all layers in one batch."""
    layers, width, rows = form.probes
    h, y = problems(form)
    equations = NormalEquations.of(Moments.like(h, y).add(h, y))
    there = NormalEquations(*(x.to(side_by_side.DEVICE) for x in equations))

    def batch() -> None:
        lasso(there, PENALTIES, solver=semismooth_newton.solve)  # a GPU's, on the CPU too

    batch()  # start-up
    batched = [seconds(batch) for _ in range(3)]
    told = f"{layers} layers x {len(PENALTIES)} penalties, d {width:,}, {rows:,} rows, in one batch"
    yield Row("probes", told, f"{sorted(batched)[1]:.2f} s", 3)
    first_layer = NormalEquations(*(x[:, :1] for x in equations))
    alone = seconds(lambda: lasso(first_layer, PENALTIES))
    told = f"one layer on the CPU, times {layers}, over the batch"
    yield Row("probes", told, f"{layers * alone / sorted(batched)[1]:.1f}")


def generation(form: Form) -> Iterator[Row]:
    """Tokens a second, steered at every layer and not."""
    name, architecture = smaller(form)
    llm = of_words(architecture, dtype())
    edits = additive(llm)
    for rows in form.batches:
        prompts = [sentence(i, 20, 20) for i in range(rows)]
        runs = [
            lambda edits=edits: seconds(
                lambda: llm.continued(prompts, edits, form.new, min_new_tokens=form.new, eos_token_id=None)  # noqa: B023
            )
            for edits in (edits, {})
        ]
        timing = turn(*runs, 10, "generation")
        speed = rows * form.new / timing.first
        told = f"{speed:,.0f} tokens/s; {timing.ratio:.3f} ({timing.low:.3f} to {timing.high:.3f}) of the plain time"
        yield Row("generation", f"{name}, steered at every layer, {rows} rows, {form.new} new tokens", told, timing.n)


def memory(form: Form) -> Iterator[Row]:
    """The peak of a forward pass against what ``plan`` says."""
    name, architecture = smaller(form)
    free()
    llm = of_words(architecture, dtype())
    blank = Blank(llm.model.config, dtype())
    batch = (16, 512) if side_by_side.DEVICE == "cuda" else (2, 8)
    ids = torch.zeros(batch, dtype=torch.int64, device=llm.device)
    planned = blank.weights + blank.forward(*batch).memory
    if side_by_side.DEVICE == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        with torch.no_grad():
            llm.decoder.base(input_ids=ids, use_cache=False)
        peak = blank.weights + torch.cuda.max_memory_allocated() - before
    else:
        with torch.no_grad(), Alive([*llm.model.parameters(), *llm.model.buffers()]) as alive:
            llm.decoder.base(input_ids=ids, use_cache=False)
        peak = blank.weights + alive.most
    told = f"{size(peak)} measured, {size(planned)} planned: {planned / peak:.3f}"
    yield Row("memory", f"{name}, forward of {batch[0]} rows of {batch[1]} tokens", told, holds=planned >= 0.95 * peak)


def compiled(form: Form) -> Iterator[Row]:
    """A compiled model, steered: compiled inside the block that steers, as hooks that come later are not seen."""
    name, architecture = smaller(form)
    llm = of_words({**architecture, "num_hidden_layers": min(4, architecture["num_hidden_layers"])}, dtype())
    ids = torch.arange(64, device=llm.device).unsqueeze(0)
    torch.compiler.reset()
    with torch.inference_mode(), edit(llm.model, additive(llm)):
        fast = torch.compile(llm.model, **form.compiler)
        expected = llm.model(ids, use_cache=False).logits
        difference = float((fast(ids, use_cache=False).logits - expected).abs().max() / expected.abs().max())
        timing = turn(
            lambda: seconds(lambda: llm.model(ids, use_cache=False)),
            lambda: seconds(lambda: fast(ids, use_cache=False)),
            5,
            "compile",
        )
    what = f"{name} of {llm.decoder.depth} layers, steered, 64 tokens, torch.compile {form.compiler}"
    same = difference <= (0.06 if dtype() == torch.bfloat16 else 1e-4)
    yield Row("compile", f"{what}: logits", f"largest difference {difference:.1e} of their size", holds=same)
    yield Row(
        "compile",
        f"{what}: eager over compiled",
        f"{timing.ratio:.2f} ({timing.low:.2f} to {timing.high:.2f})",
        timing.n,
    )
