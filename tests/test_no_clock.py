"""No test waits for time to pass, or fails because it passed: a busy machine is as good as an idle one."""

import ast
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

SOURCES = sorted(Path(__file__).parent.rglob("*.py"))
CLOCKS = {"time", "timeit", "sched", "sleep", "perf_counter", "monotonic"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_test_knows_the_time(path: Path) -> None:
    named: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            named.add(node.module or "")
        elif isinstance(node, ast.Attribute):
            named.add(node.attr)
    assert not named & CLOCKS


def test_generated_examples_may_take_their_time() -> None:
    """Hypothesis fails what takes longer than 200 ms, and data that it is slow to draw, unless it is told not to."""
    assert settings().deadline is None
    assert HealthCheck.too_slow in settings().suppress_health_check
