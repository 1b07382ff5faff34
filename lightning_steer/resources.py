"""Configurations and models that ship: found by their path in the project, wherever the package is installed."""

from pathlib import Path

PACKAGE = Path(__file__).parent
FOLDERS = ("configs", "checkpoints")


def resource_path(path: str) -> str:
    """The user's own file or folder of this name if there is one, else the one that came with the package.

    ``configs/steer_toy.yaml`` and ``checkpoints/pocket/base`` are looked for in the working folder, then inside the
    package (a wheel), then beside it (a source tree). A path that is nowhere is returned as it is.
    """
    relative = Path(path)
    if relative.exists() or relative.is_absolute() or relative.parts[:1] not in [(folder,) for folder in FOLDERS]:
        return path
    project = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else PACKAGE
    matches = (root / relative for root in (PACKAGE / "_files", project) if (root / relative).exists())
    return str(next(matches, path))
