"""Configurations and models that ship: found by their path in the project, wherever the package is installed."""

from pathlib import Path

PACKAGE = Path(__file__).parent
FOLDERS = ("configs", "checkpoints")


def shipped(path: str) -> str:
    """The user's own file or folder of this name if there is one, else the one that came with the package.

    ``configs/steer_toy.yaml`` and ``checkpoints/pocket/base`` are looked for in the working folder, then inside the
    package (a wheel), then beside it (a source tree). A path that is nowhere is returned as it is.
    """
    given = Path(path)
    if given.exists() or given.is_absolute() or given.parts[:1] not in [(folder,) for folder in FOLDERS]:
        return path
    beside = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else PACKAGE
    found = (root / given for root in (PACKAGE / "_files", beside) if (root / given).exists())
    return str(next(found, path))
