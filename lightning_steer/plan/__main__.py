"""Print what a run will cost; ``python -m lightning_steer plan``."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lightning_steer import methods
from lightning_steer.data.behaviours.module import BehaviourDataModule
from lightning_steer.data.behaviours.pairs import Pairs, read_files
from lightning_steer.data.text import read
from lightning_steer.errors import UserError
from lightning_steer.escapes import say
from lightning_steer.lm import loading
from lightning_steer.lm.language_model import LLM
from lightning_steer.plan import experiment, known, machine, phases, planning, table
from lightning_steer.plan.blank import Blank, located, stored_dtype
from lightning_steer.plan.options import DTYPES, check, overrides_of, parser
from lightning_steer.plan.rows import Counter, tokenizer_of
from lightning_steer.resources import resource_path
from lightning_steer.workflows import steer
from lightning_steer.workflows.command import WRITTEN
from lightning_steer.workflows.search import opening
from lightning_steer.workflows.trials import own_strengths

TYPICAL = 64
"""Tokens of a row, where the data are not on this machine."""

NOTES = (
    "which layer is tested is not known before the search: the middle one is counted",
    "where the largest strength is the best and none were given, larger ones follow",
)


class Asked(NamedTuple):
    """What a plan is of, and what its phases need."""

    title: str
    work: phases.Work | None
    """None if the data cannot be read here."""
    why: str
    """Why they cannot."""
    counter: Counter
    files: list[str]
    cache: tuple[str, float] | None
    trains: bool = False
    notes: Sequence[str] = ()
    """Sentences on the phases."""


def main(arguments: list[str] | None = None) -> int:
    """Print the plan."""
    options = parser().parse_args(arguments)
    check(options)
    overrides = [f"--model.backbone.{name}={value}" for name, value in overrides_of(options)] if options.config else []
    asked = experiment.read(options.config, overrides) if options.config else None
    llm = asked.llm if asked else LLM(options.llm, chat=options.chat, dtype=options.dtype, revision=options.revision)
    llm.tokens_per_batch = options.tokens_per_batch or llm.tokens_per_batch
    dtype, revision, *_ = llm.loading
    folder = located(llm.llm, revision)
    config = loading.configuration(str(folder))
    chosen = DTYPES.get(dtype) or stored_dtype(folder, config)
    blank, other = planning.models(config, chosen, llm.name)
    counter = Counter(llm, tokenizer_of(folder))
    plan = of_experiment(asked, counter, blank) if asked else of_steer(options, counter, blank)
    show(options, config, folder, blank, other, llm, plan)
    return 0


def of_experiment(asked: experiment.Experiment, counter: Counter, blank: Blank) -> Asked:
    """Return what an experiment needs."""
    depth, title = blank.decoder.depth, f"{asked.name} ({asked.module.__name__})"
    layers = experiment.layers_of(asked.llm, depth)
    try:
        work, why = experiment.work(asked, counter, depth), ""
    except (ValueError, OSError) as error:
        work, why = None, " ".join(str(error).split())
    cache = None if work is None else experiment.disk(asked, work.read, blank.decoder.width, len(layers))
    trains = any(phase.name == "fit: train" for phase in work.phases) if work else False
    return Asked(title, work, why, counter, experiment.files(asked), cache, trains)


def of_steer(options: Any, counter: Counter, blank: Blank) -> Asked:
    """Return what ``steer`` with these options needs."""
    out = options.out or Path("logs/steer") / (options.pairs[0].stem if options.pairs else "PAIRS")
    files = [f"{out}/vector.safetensors, report.md, report.json, search.md, figures"]
    if options.pairs is None:
        return Asked("steer", None, "no --pairs were given", counter, files, None)
    pairs, depth = read_files(options.pairs), blank.decoder.depth
    if len(pairs) < steer.LEAST:
        named = " and ".join(map(str, options.pairs))
        raise UserError(f"steer needs at least {steer.LEAST} pairs, and {named} holds {len(pairs)}: add pairs")
    counter.llm.layers = options.layers or list(range(depth))
    layers = experiment.layers_of(counter.llm, depth)
    kinds = [getattr(methods, name)(blank.decoder.width) for name in options.method or ["MeanDifference"]]
    strengths = [len(own_strengths(kind, options.strengths)) for kind in kinds]
    texts = _reference_texts(options, counter)
    data = BehaviourDataModule(Pairs(pairs), None, False, *steer.SHARES)
    halves = texts[::2], texts[1::2]
    reference = counter.texts(halves[0]), counter.texts(halves[1])
    avoided: tuple[Sequence[str], ...] = ((), halves[0])  # what judges must not begin like what chooses
    openings = [[opening(text, away) for text in half] for half, away in zip(halves, avoided, strict=True)]
    first = [counter.texts(dict.fromkeys(filter(None, begun))) for begun in openings]
    work = phases.searched(
        counter.parts(data),
        reference,
        (first[0], first[1]),
        depth,
        layers,
        strengths,
        options.full_grid,
        counter.llm.tokens_per_batch,
        WRITTEN,
    )
    trained = [type(kind).__name__ for kind in kinds if kind.trained]
    uncounted = [f"the training of {name} is not counted, and may cost most" for name in trained]
    return Asked(f"steer ({len(pairs)} pairs)", work, "", counter, files, None, notes=(*NOTES, *uncounted))


def _reference_texts(options: Any, counter: Counter) -> list[str]:
    if options.reference_texts is not None:
        return steer.reference_texts_for(counter.llm, [text for (text,) in read(options.reference_texts, ("text",))])
    if counter.exact:
        return steer.reference_texts_for(counter.llm, None)
    return [text for (text,) in read(Path(resource_path(steer.REFERENCE_TEXTS[0])), ("text",))]


def _typical(tokens_per_batch: int, sites: int) -> phases.Needs:
    """Return the batches of rows of usual length, with nine steered copies."""
    rows = max(1, tokens_per_batch // TYPICAL)
    return phases.Needs((rows, TYPICAL), (rows, TYPICAL), sites, rows * TYPICAL // 10, 9, rows * TYPICAL, (0, 0))


def show(options: Any, config: Any, folder: Path, blank: Blank, other: Blank, llm: LLM, asked: Asked) -> None:
    """Print everything."""
    depth, work = blank.decoder.depth, asked.work

    def needs(tokens: int) -> phases.Needs:
        return work.needs(tokens) if work is not None else _typical(tokens, len(llm.layers))

    largest = needs(llm.tokens_per_batch)
    plan, second = planning.plan(blank, largest), planning.plan(other, largest)
    say(f"Plan of {asked.title} with {llm.name}: nothing is downloaded or loaded.\n")
    say(f"{'parameters':<44}{blank.parameters:>24,}")
    say(f"{'  of these embedding and vocabulary head':<44}{blank.vocabulary:>24,}")
    say(f"{'blocks, width':<44}{f'{depth}, {blank.decoder.width}':>24}")
    say(f"{'weights on this machine':<44}{_weights(folder):>24}")
    if not Path(llm.llm).is_dir():
        say(f"{'access':<44}{known.access(llm.llm):>24}")
    rows, tokens = largest.batch
    at_once = f"tokens_per_batch {llm.tokens_per_batch:,}, copies counted"
    say(f"\nlargest batch: {rows:,} rows of {tokens:,} tokens ({at_once})")
    for line in table.memory([plan, second]):
        say(line)
    if work is None:
        say(f"\ntokens and time are not known: {asked.why}")
    else:
        speed = _speed(options, config, plan, largest) if options.calibrate else None
        given = None if options.throughput is None else options.throughput * 1e12
        say()
        for line in table.phases(work.phases, plan, depth, asked.counter.exact, speed, given):
            say(line)
        for line in _remarks(options, asked, speed):
            say(line)
    say()
    if asked.cache is not None:
        say(f"disk: {planning.size(asked.cache[1])} of activations in {asked.cache[0]}")
    for line in asked.files:
        say(f"writes {line}")
    half = {plan.dtype: plan, second.dtype: second}.get(torch.bfloat16, plan).memory.peak
    for line in planning.proposals(
        plan.memory,
        lambda: half,
        lambda tokens: planning.plan(blank, needs(tokens)).memory.peak,
        llm.tokens_per_batch,
        machine.devices(),
        machine.resident(),
        asked.trains,
    ):
        say(line)


def _weights(folder: Path) -> str:
    sizes = [path.stat().st_size for path in folder.glob("*.safetensors")]
    return planning.size(sum(sizes)) if sizes else "none"


def _speed(options: Any, config: Any, plan: planning.Plan, needs: phases.Needs) -> machine.Speed:
    generated = max(1, needs.generated[0]), max(1, needs.generated[1])
    return machine.calibrate(config, plan.dtype, needs.batch, generated, plan.block, options.device)


def _remarks(options: Any, asked: Asked, speed: machine.Speed | None) -> Sequence[str]:
    remarks = list(asked.notes)
    if not asked.counter.exact:
        remarks.append("~: without a tokenizer on this machine a token is taken for 4 bytes of text")
    if speed is not None:
        remarks.append(f"time at {speed.rate / 1e12:.3g} TFLOP/s, measured on {options.device} with two blocks")
    elif options.throughput is not None:
        remarks.append(f"time at {options.throughput:g} TFLOP/s as given; generated text takes longer than that")
    else:
        remarks.append("time: give --calibrate (20 s) or --throughput")
    return remarks


if __name__ == "__main__":
    sys.exit(main())
