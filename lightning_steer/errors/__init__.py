"""The type of a user's mistake; every other error is a bug of ours and keeps its traceback.

What a user reads of an error stands in :mod:`lightning_steer.errors.sentences`.
"""


class UserError(ValueError):
    """A mistake of the user, told in one sentence: the value, what was expected, what to do."""


def brief(error: BaseException) -> str:
    """Return the first line of a library's error message; the error's type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
