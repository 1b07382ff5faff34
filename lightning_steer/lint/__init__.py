"""Lint contrast pairs: repeats, leaks, and surface features that tell positives from negatives. Needs no torch."""

from lightning_steer.lint.linting import lint_pairs
from lightning_steer.lint.records import Finding, Imbalance, LintReport

__all__ = ["Finding", "Imbalance", "LintReport", "lint_pairs"]
