"""Arguments of the small commands: what is wrong with them is said in one sentence, without the usage above it."""

import argparse
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Ends with exit code 2 and one sentence, as the rest of the command line does."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        self.exit(2, f"lightning_steer: {message}; see {self.prog} --help\n")
