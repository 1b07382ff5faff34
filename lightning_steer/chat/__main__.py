"""Talk with a model at several strengths of a vector side by side, in the terminal or on a page.

For example: chat --llm checkpoints/pocket/base --vector logs/steer/pairs/vector.safetensors --strengths 0 2 6
"""

import argparse
import sys
from pathlib import Path

from lightning_steer.arguments import Parser
from lightning_steer.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """Load the model and the vector once, and talk until the user ends it."""
    options = parser().parse_args(arguments)
    try:
        _chat(options)
    except KeyboardInterrupt:  # while the model was loaded
        return 130
    return 0


def _chat(options: argparse.Namespace) -> None:
    if options.port is not None and not options.web:
        raise UserError(f"--port {options.port} is of the page: add --web, or leave it out")
    if options.web:
        from lightning_steer.chat import extra

        extra.check()  # before a model is loaded in vain
    from lightning_steer import numbers
    from lightning_steer.chat.session import Session
    from lightning_steer.lm.language_model import LLM
    from lightning_steer.resources import resource_path
    from lightning_steer.vectors import load

    numbers.check({"max_new_tokens": options.max_new_tokens}, "--")
    vector = load(resource_path(str(options.vector)))
    llm = LLM(options.llm, dtype=options.dtype, revision=options.revision)
    llm.load()
    llm.chat = bool(llm.tokenizer.chat_template) and not options.plain
    beside = [load(resource_path(str(path))) for path in options.beside]
    session = Session(llm, vector, options.strengths, options.max_new_tokens, options.other_model == "true", beside)
    if options.web:
        from lightning_steer.chat.web import serve

        serve(session, options.port or 0)
    else:
        from lightning_steer.chat.terminal import chat

        chat(session)


def parser() -> Parser:
    """Return the parser of this command."""
    made = Parser.of_command("chat", "--llm NAME --vector FILE [options]", __doc__)
    made.add_model()
    made.add_argument(
        "--vector", required=True, type=Path, metavar="FILE", help="a vector file, as `steer` and `export` write it"
    )
    made.add_argument(
        "--strengths",
        type=float,
        nargs="+",
        metavar="X",
        help="a column for each, in the vector's units (default: the one that does nothing, and the vector's own)",
    )
    made.add_beside("further vector files, which steer every column at the strengths of their cards")
    made.add_argument(
        "--max_new_tokens", type=int, default=128, metavar="N", help="the longest answer, in tokens (default: 128)"
    )
    made.add_argument(
        "--plain", action="store_true", help="continue messages as texts, even if the tokenizer has a chat template"
    )
    made.add_accepting("--other_model", "steer with a vector that was fitted on another model (default: false)")
    made.add_argument("--web", action="store_true", help="serve a page on this machine instead; needs the extra `web`")
    made.add_argument("--port", type=int, metavar="N", help="the port of the page (default: one that is free)")
    made.add_loading()
    return made


if __name__ == "__main__":
    sys.exit(main())
