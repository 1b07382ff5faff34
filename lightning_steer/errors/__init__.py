"""The type of a user's mistake; every other error is a bug of ours and keeps its traceback.

What a user reads of an error stands in :mod:`lightning_steer.errors.sentences`.
"""


class UserError(ValueError):
    """A mistake of the user, told in one sentence: the value, what was expected, what to do."""
