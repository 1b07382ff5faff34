"""Steer a language model with contrast pairs.

The pairs are split into three parts. The method is fitted to the first. The second chooses the layer and the strength:
of the settings that change unrelated text by at most --budget and do not break generated text, the one with the largest
effect: the mean change of the margin, which is the log-probability of the positive less that of the negative, per
token. The third measures the effect. The damage is measured on unrelated texts that played no part in the choice. The
command shows text unsteered and steered. It writes the vector and the report to --out; the commands `chat` and `export`
take the vector. For example:

  steer --llm checkpoints/pocket/base --pairs configs/pairs.jsonl --prompt "The hill bakers are"
"""

import argparse
import json
from pathlib import Path
from typing import Any

from lightning_steer import methods, numbers
from lightning_steer.arguments import Parser
from lightning_steer.data.behaviours.pairs import ContrastPair, read_files
from lightning_steer.data.text import read
from lightning_steer.errors import UserError
from lightning_steer.escapes import say
from lightning_steer.files import check_folder, check_no_links
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import AllTokens, GeneratedTokens, LastPromptToken, PromptTokens
from lightning_steer.report import card
from lightning_steer.report import search as search_report
from lightning_steer.resources import resource_path
from lightning_steer.selection.grid import Grid
from lightning_steer.vectors import SteeringVector, edit, load
from lightning_steer.workflows import board
from lightning_steer.workflows.part import Part
from lightning_steer.workflows.steer import EPOCHS, Steered, searched

VECTOR = "vector.safetensors"
WRITTEN = 24
"""Tokens that are written after each prompt that is shown, unless others are asked for."""
METHODS = [
    name
    for name in methods.__all__
    if isinstance(kind := getattr(methods, name), type)
    and not (kind.__abstractmethods__ or kind in (methods.Composed, methods.Gated))  # made of others
]
POSITIONS = {kind.__name__: kind for kind in (AllTokens, PromptTokens, LastPromptToken, GeneratedTokens)}


def main(arguments: list[str] | None = None) -> int:
    """Search, judge, write a folder, and print the unsteered and the steered text."""
    options = parser().parse_args(arguments)
    given = {"budget": options.budget, "max_new_tokens": options.max_new_tokens, "seed": options.seed}
    numbers.check({**given, "epochs": options.epochs}, "--")
    if options.prompt and not all(map(str.strip, options.prompt)):
        raise UserError(f"--prompt is empty in {options.prompt}: give a text to continue")
    out = options.out or Path("logs/steer") / options.pairs[0].stem
    check_no_links(out)
    there = [name for name in (VECTOR, "report.json", "search.md") if (out / name).exists()]
    part = Part(out, json.dumps(vars(options), default=str))
    if there and options.overwrite != "true" and not part.goes_on:  # what a stopped command has left is its own
        raise UserError(f"{out / there[0]} exists: name another folder with --out, or give --overwrite true")
    pairs = read_files(options.pairs)
    path = options.reference_texts
    texts = None if path is None else [text for (text,) in read(path, ("text",))]
    beside = [load(resource_path(str(path))) for path in options.beside]
    check_folder(out)
    with part:
        written, report = _steer(options, pairs, texts, beside, part)
    say(report)
    for one in written:
        say(f"\n{one['prompt']}\n  baseline: {one['baseline']}\n  steered:  {one['steered']}")
    say(f"\nWrote {out}: {VECTOR}, report.md (effect, damage, controls), search.md (all layers and strengths, texts)")
    return 0


def _steer(
    options: argparse.Namespace,
    pairs: list[ContrastPair],
    texts: list[str] | None,
    beside: list[SteeringVector],
    part: Part,
) -> tuple[list[dict[str, str]], str]:
    """Do the work, write all into the folder, and return the continuations and the report for the terminal."""
    llm = LLM(
        options.llm,
        positions=POSITIONS[options.positions](),
        chat=options.chat,
        dtype=options.dtype,
        revision=options.revision,
    )
    with part.results() as folder:
        result = searched(
            llm,
            pairs,
            options.layers or "auto",
            [getattr(methods, name) for name in dict.fromkeys(options.method or ["MeanDifference"])],
            options.strengths,
            options.budget,
            texts,
            options.seed,
            full_grid=options.full_grid,
            epochs=options.epochs,
            certify=options.certify,
            folder=folder,
            unfinished=part.folder,
            lines=True,
            beside=beside,
        )
        prompts = options.prompt or result.held_out[:3]
        before = llm.generate(prompts, max_new_tokens=options.max_new_tokens)
        with edit(llm, [result.vector, *beside]):
            after = llm.generate(prompts, max_new_tokens=options.max_new_tokens)
        written = [dict(zip(card.TEXTS, one, strict=True)) for one in zip(prompts, before, after, strict=True)]
        search_report.write(folder, _plain(result, options.budget), written)
        board.write(folder)
        result.vector.save(folder / VECTOR)
        report = card.text(json.loads((folder / "report.json").read_text()))
        board.remove(part.out)
        part.publish(folder, last=VECTOR)  # no vector ever lies beside the report of another
    return written, report


def _plain(result: Steered, budget: float) -> dict[str, Any]:
    others = {trial.name: _tables(trial.grid) for trial in result.others}
    chosen = {"chosen": result.setting, "budget": budget, "reason": result.reason}
    return {**_tables(result.grid), **chosen, "others": others}


def _tables(grid: Grid) -> dict[str, Any]:
    return {**grid._asdict(), "effect": grid.effect.tolist(), "damage": grid.damage.tolist()}


def parser() -> Parser:
    """Return the parser of this command."""
    made = Parser.of_command("steer", "--llm NAME --pairs FILE [options]", __doc__)
    made.add_model()
    made.add_argument(
        "--pairs",
        required=True,
        type=Path,
        nargs="+",
        metavar="FILE",
        help="contrast pairs, at least ten (with four to nine the command runs, but its result shows nothing): a JSON "
        'object {"prompt": ..., "positive": ..., "negative": ...} on each line, or a .csv file with these columns; '
        "positive continues the prompt as you want it, negative as you do not. Or two text files, first the "
        "positives, then the negatives, one text per line; the words that both lines of a pair begin with are its "
        "prompt",
    )
    made.add_argument(
        "--layers",
        type=int,
        nargs="+",
        metavar="N",
        help="decoder blocks (layers) to try, counted from 0 (default: all)",
    )
    made.add_argument(
        "--method",
        action="append",
        choices=METHODS,
        metavar="NAME",
        help=f"the steering method, one of {', '.join(METHODS)}; repeat the option to try several and keep the one "
        "with the largest effect (default: MeanDifference)",
    )
    made.add_argument(
        "--positions",
        choices=POSITIONS,
        default="AllTokens",
        metavar="NAME",
        help=f"the tokens that are steered: {', '.join(POSITIONS)} (default: AllTokens)",
    )
    made.add_beside(
        "vector files that also steer, at the strengths on their cards: layer and strength are chosen for what the new "
        "vector adds to them, the budget is for all together, and the report says whether their effects add up"
    )
    made.add_argument(
        "--strengths",
        type=float,
        nargs="+",
        metavar="X",
        help="strengths to try, the weakest first, in the method's own unit; for MeanDifference, 1 adds the mean "
        "difference once (default: nine from 0.25 to 6 for most methods, "
        "then larger ones if 6 is the best)",
    )
    made.add_argument(
        "--full_grid",
        action="store_true",
        help="try every layer at all strengths (default: models of eight layers or more are searched from coarse to "
        "fine; trained methods are trained for all --epochs only at the best layers)",
    )
    made.add_argument(
        "--epochs",
        type=int,
        default=EPOCHS,
        metavar="N",
        help="passes over the pairs, for methods that are trained, such as LearnedVector; without --full_grid, layers "
        f"that are not among the best are trained for fewer (default: {EPOCHS})",
    )
    made.add_argument(
        "--budget",
        type=float,
        default=0.1,
        metavar="X",
        help="the largest accepted damage: how much the predictions on unrelated text may change, as a KL divergence "
        "in nats per token (default: 0.1)",
    )
    made.add_argument(
        "--certify",
        action="store_true",
        help="certify the improvement: report a lower bound, with 95 %% confidence, on the change in the share of "
        "pairs whose positive is the likelier continuation",
    )
    made.add_argument(
        "--reference_texts",
        type=Path,
        metavar="FILE",
        help="unrelated texts, which steering should not change: .txt (blank lines between texts) or .jsonl with "
        '{"text": ...} on each line (default: texts that come with the package)',
    )
    made.add_argument(
        "--prompt",
        action="append",
        metavar="TEXT",
        help="a prompt to continue, unsteered and steered; repeat the option for more (default: three held-out "
        "prompts of the pairs)",
    )
    made.add_argument(
        "--max_new_tokens",
        type=int,
        default=WRITTEN,
        metavar="N",
        help=f"length of a continuation, in tokens (default: {WRITTEN})",
    )
    made.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="the folder to write (default: logs/steer/NAME for pairs in NAME.jsonl)",
    )
    made.add_accepting("--overwrite", "replace an earlier result in that folder (default: false)")
    made.add_argument(
        "--chat", action="store_true", help="put prompts into the model's chat template, as for an instruct model"
    )
    made.add_loading()
    made.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="the seed of the random split into pairs for fitting, for choosing and held out (default: 0)",
    )
    return made
