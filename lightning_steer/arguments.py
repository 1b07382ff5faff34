"""Arguments of the small commands: what is wrong with them is said in one sentence, without the usage above it."""

import argparse
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """Ends with exit code 2 and one sentence, as the rest of the command line does."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)  # half an option's name is a misspelling

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        self.exit(2, f"lightning_steer: {message}; see {self.prog} --help\n")
