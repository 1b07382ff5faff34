"""Steer a model from contrast pairs: choose layer and strength, judge, and show steered text.

For example: steer --llm checkpoints/pocket/base --pairs configs/pairs.jsonl --prompt "The hill bakers are"
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from lightning_steer import methods, numbers
from lightning_steer.arguments import Parser
from lightning_steer.data.behaviours.pairs import read_pairs
from lightning_steer.data.text import read
from lightning_steer.escapes import say
from lightning_steer.files import check_folder, check_no_links
from lightning_steer.lm.language_model import LLM
from lightning_steer.report import card
from lightning_steer.report import search as search_report
from lightning_steer.resources import resource_path
from lightning_steer.selection.grid import Grid
from lightning_steer.workflows.steer import Steered, searched

VECTOR = "vector.safetensors"
METHODS = [
    name
    for name in methods.__all__
    if isinstance(kind := getattr(methods, name), type) and not kind.__abstractmethods__ and not kind.trained
]


def main(arguments: list[str] | None = None) -> int:
    """Search, judge, write a folder, and print the unsteered and the steered text."""
    options = parser().parse_args(arguments)
    numbers.check({"budget": options.budget, "max_new_tokens": options.max_new_tokens, "seed": options.seed}, "--")
    if options.prompt and not all(map(str.strip, options.prompt)):
        raise ValueError(f"--prompt is empty in {options.prompt}: give a text to continue")
    out = options.out or Path("logs/steer") / options.pairs.stem
    check_no_links(out)
    there = [name for name in (VECTOR, "report.json", "search.md") if (out / name).exists()]
    if there and options.overwrite != "true":
        raise ValueError(f"{out / there[0]} exists: name another folder with --out, or give --overwrite true")
    pairs = read_pairs(resource_path(str(options.pairs)))
    path = options.reference_texts
    texts = None if path is None else [text for (text,) in read(path, ("text",))]
    check_folder(out)
    llm = LLM(options.llm, chat=options.chat, dtype=options.dtype, revision=options.revision)
    layers = options.layers or "auto"
    method = [getattr(methods, name) for name in dict.fromkeys(options.method or ["MeanDifference"])]
    near = next(path for path in (out, *out.absolute().parents) if path.exists())  # on the same disk
    with tempfile.TemporaryDirectory(prefix=".steer-", dir=near) as aside:  # what is there stays until all is made
        part = Path(aside)
        result = searched(
            llm,
            pairs,
            layers,
            method,
            options.strengths,
            options.budget,
            texts,
            options.seed,
            full_grid=options.full_grid,
            folder=part,
        )
        prompts = options.prompt or result.held_out[:3]
        before = llm.generate(prompts, max_new_tokens=options.max_new_tokens)
        with result.vector.applied_to(llm):
            after = llm.generate(prompts, max_new_tokens=options.max_new_tokens)
        written = [dict(zip(card.TEXTS, one, strict=True)) for one in zip(prompts, before, after, strict=True)]
        search_report.write(part, _plain(result, options.budget), written)
        result.vector.save(part / VECTOR)
        report = card.text(json.loads((part / "report.json").read_text()))
        out.mkdir(parents=True, exist_ok=True)
        (out / VECTOR).unlink(missing_ok=True)  # no vector ever lies beside the report of another
        for path in sorted(part.iterdir(), key=lambda path: path.name == VECTOR):  # the vector is the last one
            path.replace(out / path.name)
    say(report)
    for one in written:
        say(f"\n{one['prompt']}\n  baseline: {one['baseline']}\n  steered:  {one['steered']}")
    say(f"\nWrote {out}: {VECTOR}, report.md (effect, damage, controls), search.md (all layers and strengths, texts)")
    return 0


def _plain(result: Steered, budget: float) -> dict[str, Any]:
    others = {trial.name: _tables(trial.grid) for trial in result.others}
    chosen = {"chosen": result.setting, "budget": budget, "reason": result.reason}
    return {**_tables(result.grid), **chosen, "others": others}


def _tables(grid: Grid) -> dict[str, Any]:
    return {**grid._asdict(), "effect": grid.effect.tolist(), "damage": grid.damage.tolist()}


def parser() -> Parser:
    """Return the parser of this command."""
    made = Parser(
        prog="python -m lightning_steer steer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--llm", required=True, help="a hub name or a local folder in Hugging Face form")
    made.add_argument(
        "--pairs",
        required=True,
        type=Path,
        help='JSON lines of {"prompt", "positive", "negative"}; at least ten',
    )
    made.add_argument("--layers", type=int, nargs="+", help="decoder blocks to try, counted from 0 (default: all)")
    made.add_argument(
        "--method",
        action="append",
        choices=METHODS,
        help="the steering method, of those with a closed form; may be given again: of several the one with the "
        "largest effect is taken (default: MeanDifference)",
    )
    made.add_argument(
        "--strengths",
        type=float,
        nargs="+",
        help="strengths to try, the weakest first (default: the method's own; as a rule nine from 0.25 to 6, then "
        "larger ones where 6 is the best)",
    )
    made.add_argument(
        "--full_grid",
        action="store_true",
        help="try every layer at all strengths (default: of eight layers or more only what lies near the best)",
    )
    made.add_argument(
        "--budget",
        type=float,
        default=0.1,
        help="the most that unrelated text may change, in nats per token (KL) (default: 0.1)",
    )
    made.add_argument(
        "--reference_texts",
        type=Path,
        help="unrelated text, .txt (parted by blank lines) or .jsonl (default: texts that ship)",
    )
    made.add_argument(
        "--prompt", action="append", help="a prompt to continue; may be options again (default: three held-out prompts)"
    )
    made.add_argument("--max_new_tokens", type=int, default=24, help="tokens of each continuation (default: 24)")
    made.add_argument("--out", type=Path, help="the folder to write; (default: logs/steer/NAME OF THE PAIRS)")
    made.add_argument(
        "--overwrite", choices=["true", "false"], default="false", help="replace what is there (default: false)"
    )
    made.add_argument("--chat", action="store_true", help="put prompts into the tokenizer's chat template")
    made.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    made.add_argument("--revision", help="branch, tag or commit on the hub")
    made.add_argument("--seed", type=int, default=0, help="draws the split of the pairs (default: 0)")
    return made
