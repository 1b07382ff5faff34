"""Say what a run will cost, before anything is downloaded or loaded.

It needs a model's config.json and no weights. It tells parameters, memory by precision, tokens and operations of each
phase, time if a speed is measured or given, and what is written; whether the run fits into this machine, and what to
change if it does not. Of `steer`, or of an experiment:

  plan --llm checkpoints/pocket/base --pairs configs/pairs.jsonl
  plan --config configs/steer_mera.yaml --config configs/methods/mera.yaml
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lightning_steer import methods, numbers
from lightning_steer.arguments import Parser
from lightning_steer.check.__main__ import usable
from lightning_steer.data.behaviours.module import BehaviourDataModule
from lightning_steer.data.behaviours.pairs import Pairs, read_pairs
from lightning_steer.data.text import read
from lightning_steer.escapes import say
from lightning_steer.lm import loading
from lightning_steer.lm.language_model import LLM
from lightning_steer.plan import experiment, known, machine, phases, planning, table
from lightning_steer.plan.blank import Blank, located, stored_dtype
from lightning_steer.plan.rows import Counter
from lightning_steer.resources import resource_path
from lightning_steer.workflows import steer
from lightning_steer.workflows.command import METHODS
from lightning_steer.workflows.search import OPENING
from lightning_steer.workflows.trials import own_strengths

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
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
    overrides = [f"--model.backbone.{name}={value}" for name, value in _overrides(options)] if options.config else []
    asked = experiment.read(options.config, overrides) if options.config else None
    llm = asked.llm if asked else LLM(options.llm, chat=options.chat, dtype=options.dtype, revision=options.revision)
    llm.tokens_per_batch = options.tokens_per_batch or llm.tokens_per_batch
    dtype, revision, *_ = llm.loading
    folder = located(llm.llm, revision)
    config = loading.configuration(str(folder))
    chosen = DTYPES.get(dtype) or stored_dtype(folder, config)
    blank, other = planning.models(config, chosen, llm.name)
    counter = Counter(llm, _tokenizer(folder))
    plan = of_experiment(asked, counter, blank) if asked else of_steer(options, counter, blank)
    show(options, config, folder, blank, other, llm, plan)
    return 0


def check(options: Any) -> None:
    """Refuse options that do not go together; raises ValueError."""
    if not options.config and options.llm is None:
        raise ValueError("nothing to plan: give --llm with --pairs, as for steer, or --config with an experiment")
    if options.config and options.pairs is not None:
        raise ValueError("--pairs is of steer, and --config of an experiment: give one of them")
    if options.dtype not in ("auto", *DTYPES):
        raise ValueError(f"dtype is auto, float32, bfloat16 or float16, not {options.dtype!r}")
    if options.calibrate and options.throughput is not None:
        raise ValueError("--calibrate measures the throughput, and --throughput gives it: leave one out")
    given = {name: getattr(options, name) for name in ("tokens_per_batch", "strengths")}
    numbers.check({name: value for name, value in given.items() if value is not None}, "--")
    if options.throughput is not None:
        numbers.finite("--throughput", options.throughput)
        if options.throughput <= 0:
            raise ValueError(f"--throughput must be above 0, in TFLOP a second, not {options.throughput:g}")
    usable(options.device)


def _overrides(options: Any) -> list[tuple[str, str]]:
    given = {"llm": options.llm, "revision": options.revision, "dtype": options.dtype}
    return [(name, value) for name, value in given.items() if value not in (None, "auto")]


def _tokenizer(folder: Path) -> Any:
    try:
        return loading.load_tokenizer(str(folder))
    except ValueError:  # a plan can do without
        return None


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
    out = options.out or Path("logs/steer") / (options.pairs.stem if options.pairs else "PAIRS")
    files = [f"{out}/vector.safetensors, report.md, report.json, search.md, figures"]
    if options.pairs is None:
        return Asked("steer", None, "no --pairs were given", counter, files, None)
    pairs, depth = read_pairs(resource_path(str(options.pairs))), blank.decoder.depth
    if len(pairs) < steer.LEAST:
        raise ValueError(f"steer needs at least {steer.LEAST} pairs, and {options.pairs} holds {len(pairs)}: add pairs")
    counter.llm.layers = options.layers or list(range(depth))
    layers = experiment.layers_of(counter.llm, depth)
    kinds = [getattr(methods, name)(blank.decoder.width) for name in options.method or ["MeanDifference"]]
    strengths = [len(own_strengths(kind, options.strengths)) for kind in kinds]
    texts = _reference_texts(options, counter)
    data = BehaviourDataModule(Pairs(pairs), None, False, *steer.SHARES)
    halves = texts[::2], texts[1::2]
    reference = counter.texts(halves[0]), counter.texts(halves[1])
    first = [counter.texts(dict.fromkeys(" ".join(text.split()[:OPENING]) for text in half)) for half in halves]
    work = phases.searched(
        counter.parts(data), reference, (first[0], first[1]), depth, layers, strengths, options.full_grid
    )
    return Asked(f"steer ({len(pairs)} pairs)", work, "", counter, files, None, notes=NOTES)


def _reference_texts(options: Any, counter: Counter) -> list[str]:
    if options.reference_texts is not None:
        return steer.reference_texts_for(counter.llm, [text for (text,) in read(options.reference_texts, ("text",))])
    if counter.exact:
        return steer.reference_texts_for(counter.llm, None)
    return [text for (text,) in read(Path(resource_path(steer.REFERENCE_TEXTS[0])), ("text",))]


def _typical(tokens_per_batch: int, sites: int) -> phases.Needs:
    """Return the batches of rows of usual length, with nine steered copies."""
    rows = max(1, tokens_per_batch // TYPICAL)
    return phases.Needs((rows, TYPICAL), (rows, TYPICAL), sites, rows * TYPICAL // 10, 9, phases.AT_ONCE, (0, 0))


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


def parser() -> Parser:
    """Return the parser of this command."""
    made = Parser(
        prog="python -m lightning_steer plan",
        usage="%(prog)s (--llm NAME --pairs FILE | --config FILE) [options]",
        description=__doc__,
    )
    made.add_argument(
        "--config",
        action="append",
        metavar="FILE",
        help="plan an experiment: its configuration; give the option once for the experiment, then once for the method",
    )
    made.add_argument(
        "--llm",
        metavar="NAME",
        help="the model: its name on the Hugging Face hub, or a local folder in the same form, of which config.json is "
        "enough (default: the configuration's)",
    )
    made.add_argument("--pairs", type=Path, metavar="FILE", help="plan `steer` with these contrast pairs")
    made.add_argument("--layers", type=int, nargs="+", metavar="N", help="as for steer: layers to try (default: all)")
    made.add_argument(
        "--method", action="append", choices=METHODS, metavar="NAME", help="as for steer (default: MeanDifference)"
    )
    made.add_argument(
        "--strengths", type=float, nargs="+", metavar="X", help="as for steer (default: the method's own)"
    )
    made.add_argument("--full_grid", action="store_true", help="as for steer: every layer at all strengths")
    made.add_argument(
        "--reference_texts", type=Path, metavar="FILE", help="as for steer (default: texts that come with the package)"
    )
    made.add_argument("--out", type=Path, metavar="FOLDER", help="as for steer: the folder that it will write")
    made.add_argument("--chat", action="store_true", help="as for steer: prompts in the model's chat template")
    made.add_loading()
    made.add_argument(
        "--tokens_per_batch",
        type=int,
        metavar="N",
        help="tokens that run through the network at once, copies counted (default: the configuration's, or 8192)",
    )
    made.add_argument(
        "--calibrate",
        action="store_true",
        help="measure the speed of two blocks with random weights for 20 seconds, to tell the time of each phase",
    )
    made.add_argument(
        "--throughput",
        type=float,
        metavar="X",
        help="tell the time at this speed, in TFLOP (10^12 floating-point operations) a second",
    )
    made.add_argument(
        "--device", default="cpu", metavar="NAME", help="where --calibrate runs, for example cuda (default: cpu)"
    )
    return made


if __name__ == "__main__":
    sys.exit(main())
