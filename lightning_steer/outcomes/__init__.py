"""Judge outcomes of steering from any tool: from a table to a verdict. Needs no torch."""

from lightning_steer.outcomes.judging import judge
from lightning_steer.outcomes.records import Judgement

__all__ = ["Judgement", "judge"]
