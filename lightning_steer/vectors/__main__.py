"""Convert a vector to the format of another tool, or read one that another tool has written.

SOURCE is a run (checkpoints/EXPERIMENT/RUN) or a file: a vector file, a GGUF control vector, plain tensors by layer
(safetensors or torch), or the dictionary of lm-evaluation-harness. The ending of TARGET says the format: .safetensors
(a vector file), .gguf (llama.cpp, repeng) or .pt (lm-evaluation-harness). With --bake, TARGET is a folder with a plain
model that is steered by its weights. For example:

  export logs/steer/pairs/vector.safetensors honest.gguf
"""

import sys
from pathlib import Path

from lightning_steer import numbers
from lightning_steer.arguments import Parser
from lightning_steer.cache import fingerprints
from lightning_steer.check import check
from lightning_steer.errors import UserError
from lightning_steer.escapes import say
from lightning_steer.lm.language_model import LLM
from lightning_steer.vectors import exchange, run
from lightning_steer.vectors.bake import adapter, bake
from lightning_steer.vectors.bind import bind
from lightning_steer.vectors.exchange import WRITERS
from lightning_steer.vectors.file import SteeringVector
from lightning_steer.vectors.imported import ImportedVector

FORMS = {".safetensors": "vector", ".gguf": "gguf", ".pt": "steered", ".pth": "steered"}
FOLDERS = {"model": bake, "lora": adapter}
"""Forms that are folders: the edit in the weights of its model."""


def main(arguments: list[str] | None = None) -> int:
    """Convert a run or vector file to another format, and print what the conversion loses."""
    parser = Parser.of_command("export", "SOURCE TARGET [options]", __doc__)
    parser.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help="a file, or a run's folder below checkpoints/; of a run only tensors, settings and classes of "
        "lightning_steer "
        "are loaded, and its settings choose the model and data that are read",
    )
    parser.add_argument(
        "target",
        type=Path,
        metavar="TARGET",
        help="the file to write: .safetensors, .gguf or .pt; with --bake or --format lora a new folder",
    )
    parser.add_argument(
        "--format",
        choices=["vector", *WRITERS, *FOLDERS],
        help="the format (default: by the ending of TARGET); steered: for lm-evaluation-harness; plain: tensors by "
        "layer; "
        "model: see --bake; lora: an adapter for peft",
    )
    parser.add_argument(
        "--bake",
        action="store_const",
        const="model",
        dest="format",
        help="write a model folder with the steering in its weights, in float32; an error if weights cannot do it "
        "exactly",
    )
    parser.add_argument(
        "--everywhere",
        action="store_true",
        help="with --bake or --format lora: remove the vector's direction from the embedding and from every "
        "attention and MLP output, whatever its own site",
    )
    parser.add_argument(
        "--strength",
        type=float,
        metavar="X",
        help="the strength, in the unit of the vector's card (default: the strength that was chosen)",
    )
    parser.add_argument(
        "--llm", metavar="NAME", help="hub name or folder of the model that an imported vector belongs to"
    )
    parser.add_accepting(
        "--accept_mismatch", "export a run even if its model or data changed since (default: false); the card says so"
    )
    parser.add_argument(
        "--licence", metavar="NAME", help="the vector's licence, as an SPDX identifier such as CC-BY-4.0"
    )
    args = parser.parse_args(arguments)
    if args.strength is not None:
        numbers.finite("--strength", args.strength)
    output_format = args.format or FORMS.get(args.target.suffix.lower())
    if args.everywhere and output_format not in FOLDERS:
        raise UserError("--everywhere changes weights: use it with --bake or --format lora")
    if output_format is None:
        raise UserError(f"{args.target} ends in none of {', '.join(FORMS)}: say the form with --format")
    accept = args.accept_mismatch == "true"
    with fingerprints.remembered():
        vector = run.read(args.source, accept) if args.source.is_dir() else exchange.read(args.source)
    if args.licence:
        vector = vector._replace(card=vector.card._replace(licence=args.licence))
    if args.llm:
        vector = bind(vector, args.llm)
    if output_format in FOLDERS:
        return _in_weights(vector, args.target, output_format, args.strength, args.everywhere)
    if args.target.exists() and args.source.exists() and args.target.samefile(args.source):
        raise UserError(f"{args.target} is the source itself: name another file")
    notes = exchange.export(vector, args.target, output_format, args.strength)
    card = vector.card
    places = ", ".join(site.module or f"block {site.layer} ({site.part})" for site in card.sites)
    model = "no known model" if card.model is None else card.model.name
    say(f"Wrote {args.target} ({output_format}): {card.method} of {model} at {places}.")
    for sentence in [*notes, *(card.warnings if isinstance(vector.maps[0], ImportedVector) else [])]:
        say(sentence)
    return 0


def _in_weights(vector: SteeringVector, folder: Path, form: str, strength: float | None, everywhere: bool) -> int:
    """Write the edit into weights, and try the laws of ``check`` on a model that was written."""
    baked = FOLDERS[form](vector, folder, strength, everywhere)
    say(f"Wrote {folder} ({form}): {baked.size / 1e6:.2f} MB in {baked.seconds:.1f} s, in float32.")
    say(f"Its logits differ from the hooked model's by at most {baked.difference:.1e} of their size.")
    for sentence in baked.notes:
        say(sentence)
    if form != "model":
        return 0
    failed = [verdict for verdict in check(LLM(str(folder), 0)) if not verdict.passed]
    if failed and vector.card.model is not None:  # such as labels that its tokenizer does not know
        base = {verdict.law for verdict in check(LLM(vector.card.model.name, 0)) if not verdict.passed}
        failed = [verdict for verdict in failed if verdict.law not in base]
    for verdict in failed:
        say(f"FAIL  {verdict.law} ({verdict.detail})")
    say(f"check: laws that fail here and hold for the model it was made of: {len(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
