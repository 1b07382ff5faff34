"""``python -m lightning_steer``."""

import sys

from lightning_steer.help import commands, early

STOPPED = 130
"""Exit code after Ctrl-C, as shells give it."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; a user's mistake ends it with one sentence and exit code 2."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        text = early.answer(words)  # neither torch nor Lightning is imported before this has passed
        if text is not None:
            print(text, end="")
            return 0
        return commands.run(words)
    except KeyboardInterrupt:  # a command that leaves something to go on from has said so
        return STOPPED
    except Exception as error:
        from lightning_steer.errors import sentences

        sentence = sentences.of_exception(error)
        if sentence is None:
            raise
        from lightning_steer.escapes import say

        say(f"lightning_steer: {sentence}", error=True)
        return 2


if __name__ == "__main__":
    sys.exit(main())
