"""The laws of ``on_other_device.py``, in a process of their own: its device starts threads of autograd's.

After that no process that is forked from it can train, as other tests do.
"""

import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.parametrize("kind", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_what_the_cpu_gives_another_device_gives(kind: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", kind, "tests/on_other_device.py"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert " passed" in run.stdout or "[100%]" in run.stdout
