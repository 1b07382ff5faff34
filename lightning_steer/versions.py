"""The versions that numbers depend on, as every record and card of the project names them."""

import platform
from importlib.metadata import version

PACKAGES = ("torch", "transformers", "tokenizers", "lightning", "torchmetrics", "numpy", "scipy")


def versions() -> dict[str, str]:
    """Return ``{name: version}`` of Python and of the libraries that compute."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
