"""What the page needs beside the base installation."""

from importlib.util import find_spec

from lightning_steer.errors import UserError

PACKAGES = "starlette", "uvicorn"


def check() -> None:
    """Raise ValueError naming what lacks and how to install it."""
    lacking = [name for name in PACKAGES if find_spec(name) is None]
    if lacking:
        raise UserError(
            f"chat --web needs {' and '.join(lacking)}: pip install -e '.[web]' in the project's "
            f"folder, or leave out --web to talk "
            "in the terminal"
        )
