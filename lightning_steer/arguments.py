"""Arguments of the small commands: what is wrong with them is said in one sentence, without the usage above it."""

import argparse
from pathlib import Path
from typing import Any, NoReturn


class Paragraphs(argparse.HelpFormatter):
    """Fits the paragraphs of a description to the terminal; leaves those that are indented, or hold lines that are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.strip("\n").split("\n\n")
        return "\n\n".join(
            part if part.startswith(" ") or "\n " in part else super(Paragraphs, self)._fill_text(part, width, indent)
            for part in paragraphs
        )


class EachOnce(argparse.Action):
    """Stores files, and rejects a file that is named twice: it would steer twice."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Store the files."""
        resolved = [path.resolve() for path in values]
        for path, place in zip(values, resolved, strict=True):
            if resolved.count(place) > 1:
                parser.error(f"{option} {path} is named twice, and would steer twice: name each file once")
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """Ends with exit code 2 and one sentence, as the rest of the command line does."""

    def __init__(self, **settings: Any) -> None:
        # half an option's name is a misspelling
        super().__init__(**{"allow_abbrev": False, "formatter_class": Paragraphs, **settings})

    @classmethod
    def of_command(cls, name: str, usage: str, description: str | None, **settings: Any) -> "Parser":
        """Return the parser of ``python -m lightning_steer NAME``; ``usage`` is what follows the name."""
        prog = f"python -m lightning_steer {name}"
        return cls(prog=prog, usage=f"%(prog)s {usage}", description=description, **settings)

    def add_model(self) -> None:
        """Add ``--llm``, the model that a command steers."""
        self.add_argument(
            "--llm",
            required=True,
            metavar="NAME",
            help="the model: its name on the Hugging Face hub, or a local folder in the same form",
        )

    def add_loading(self) -> None:
        """Add ``--dtype`` and ``--revision``, with which that model is loaded."""
        self.add_argument(
            "--dtype",
            default="auto",
            metavar="NAME",
            help="precision of the weights: float32, bfloat16, float16, or auto for the one they are stored in "
            "(default: auto)",
        )
        self.add_argument("--revision", metavar="NAME", help="the model's branch, tag or commit on the hub")

    def add_beside(self, description: str) -> None:
        """Add ``--beside``, vector files that steer as well."""
        self.add_argument(
            "--beside", type=Path, nargs="+", default=[], action=EachOnce, metavar="FILE", help=description
        )

    def add_accepting(self, name: str, description: str) -> None:
        """Add an option that is ``true`` or, by default, ``false``."""
        self.add_argument(name, choices=["true", "false"], default="false", help=description)

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        self.exit(2, f"lightning_steer: {message}; see {self.prog} --help\n")
