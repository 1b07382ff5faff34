"""``python -m lightning_steer.studies.published``: judge outcomes that others released, and write the page."""

import argparse
import sys
from pathlib import Path

from lightning_steer.escapes import say
from lightning_steer.report.files import write_text
from lightning_steer.studies.published import page
from lightning_steer.studies.published.sources import folder


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the options of the study."""
    parser = argparse.ArgumentParser(prog="python -m lightning_steer.studies.published", description=__doc__)
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        required=True,
        help="the folder that holds the tables of outcomes, or their folder outcomes",
    )
    add("--page", type=Path, default=Path("docs/published.md"), help="where the page goes")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Read, judge and write; a table that is missing or wrong ends it with one sentence and exit code 2."""
    options = arguments(argv)
    try:
        text = page.text(folder(options.data))
        write_text(options.page, text)
    except (OSError, ValueError) as error:
        say(f"lightning_steer: {' '.join(str(error).split())}", error=True)
        return 2
    say(f"Wrote {options.page}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
