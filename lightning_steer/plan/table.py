"""Print a plan: short tables, every number with its unit."""

from collections.abc import Sequence

from lightning_steer.plan.machine import Speed
from lightning_steer.plan.phase import Phase
from lightning_steer.plan.planning import Memory, Plan, size

LABELS = {
    "weights": "weights",
    "activations": "activations of the largest batch",
    "states": "states that are kept",
    "head": "log-probabilities of the vocabulary",
    "cache": "key-value cache",
    "peak": "most at once",
}


def memory(plans: Sequence[Plan]) -> list[str]:
    """Return the table of the memory, a column for each precision; the first is the run's own."""
    names = [str(plan.dtype).removeprefix("torch.") for plan in plans]
    lines = [f"{'memory':<44}" + "".join(f"{name:>12}" for name in names)]
    for field in Memory._fields:
        values = [size(getattr(plan.memory, field)) for plan in plans]
        lines.append(f"  {LABELS[field]:<42}" + "".join(f"{value:>12}" for value in values))
    return lines


def phases(
    rows: Sequence[Phase], plan: Plan, depth: int, exact: bool, speed: Speed | None, throughput: float | None
) -> list[str]:
    """Return the table of the phases: tokens through the whole network, operations, and time if a speed is known.

    Args:
        rows: the phases.
        plan: what a token costs.
        depth: blocks of the model.
        exact: whether tokens were counted by the tokenizer.
        speed: as measured; None if it was not.
        throughput: floating-point operations in a second, as given; None if it was not.
    """
    timed = speed is not None or throughput is not None
    about = "" if exact else "~"
    lines = [f"{'phase':<44}{'tokens':>12}{'operations':>13}" + (f"{'time':>12}" if timed else "")]
    total = [0.0, 0.0, 0.0]
    for phase in rows:
        flops = phase.flops(depth, plan.block, plan.score)
        seconds = phase.seconds(speed) if speed is not None else flops / throughput if throughput else 0.0
        values = phase.tokens(depth), flops, seconds
        total = [a + b for a, b in zip(total, values, strict=True)]
        lines.append(_row(phase.name, *values, about, timed))
    return [*lines, _row("in all", total[0], total[1], total[2], about, timed)]


def _row(name: str, tokens: float, flops: float, seconds: float, about: str, timed: bool) -> str:
    count = f"{about}{tokens:,.0f}"
    return f"  {name:<42}{count:>12}{operations(flops):>13}" + (f"{duration(seconds):>12}" if timed else "")


def operations(flops: float) -> str:
    """Return a number of floating-point operations with its unit, to three digits."""
    for unit, count in (("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9)):
        if flops >= 0.9995 * count:
            return f"{flops / count:.3g} {unit}" if flops < 999.5 * count else f"{flops / count:,.0f} {unit}"
    return f"{flops / 1e6:.3g} MFLOP"


def duration(seconds: float) -> str:
    """Return a time with its unit."""
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2f} s"
