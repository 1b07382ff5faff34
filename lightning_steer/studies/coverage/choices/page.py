"""The page of choices under several promises."""

import itertools
from typing import Any

from lightning_steer.markdown import table
from lightning_steer.studies.coverage.choices.cells import DELTAS, EACH, LIMIT, RULES, TRUTHS
from lightning_steer.studies.coverage.promises import ICC, K
from lightning_steer.studies.coverage.verdicts import fault

Row = dict[str, Any]
HEAD = """# How often the choice of `judge` is right

The command `judge` reads a table of outcomes of steering at several settings, such as strengths. It certifies the
settings that keep all promises (a benefit, and limits on harms), and chooses one of them ([how](judge.md)). The chance
that the chosen setting breaks any promise must be at most delta. This page simulates the choice: {sets:,} tables for
each design, whose true means are known. `python -m lightning_steer.studies.coverage.choices` makes it in
{minutes:.0f} minutes of processor time, from fixed seeds. [Coverage](coverage.md) has 144 more designs, with 4,000
tables each. There a harm's limit is .05, and with so strict a limit 100 clusters never certify anything.

**The designs.** There are {k} settings. The promises: a benefit above 0, and two, three or four harms whose
measure falls by less than {limit:g}. The measures correlate by 0, .5 or .9 (the normal variables that they are made
from). The choice uses 100, 250 or 1,000 units: independent rows, whose changes are -1, 0 or 1, or clusters of {each}
such rows with an intra-cluster correlation of {icc:g}.

- *At the limits* every setting lies exactly at the limit of one promise (a benefit of 0, or a fall of {limit:g}), which
  breaks this promise. It keeps the others easily: a benefit of .3, no change of the other harms. So every choice is
  wrong. This is the hard case.
- *Growing*: setting s (1 to {k}) has a benefit of .08 s, and every harm's measure falls by .0396 s. So settings 1 to
  5 keep all promises; settings 6 to 10 break every promise about a harm. The best right choice has a benefit of .4.

Designs that differ only in the true means, the number of harms or delta share their random numbers.

**The two rules.** *judge* tests every promise at level delta / {k}: with the exact paired test for rows, with a betting
test of the mean for clusters. A setting must pass all its tests, so delta is not divided among its promises.
*Hoeffding* takes Hoeffding's bound of each mean at delta / ({k} x promises), a union bound over settings and promises.
Of the settings that pass, both choose the one with the largest observed benefit.
"""
AGAIN = (
    "The design that lay farthest above its delta when this page was first made (250 rows, three harms, correlation "
    ".9, at the limits, delta .01: .0155) was drawn anew, 20,000 tables from seed 1: .0075 of them chose wrongly."
)
COLUMNS = (
    "units",
    "delta",
    "designs",
    "wrong at the limits: most, judge",
    "Hoeffding",
    "growing, wrong: most, judge",
    "right choice: judge",
    "Hoeffding",
    "benefit won of .4: judge",
    "Hoeffding",
    "observed less true benefit: judge",
)


def text(rows: list[Row], sets: int, seconds: float) -> str:
    """Return the page as Markdown: what holds, a table of groups, then every design."""
    head = HEAD.format(sets=sets, minutes=max(seconds / 60, 1), k=K, limit=LIMIT, each=EACH, icc=ICC)
    lines = [head, "## What holds", "", summary(rows), "", *table(COLUMNS, map(_group, _groups(rows)))]
    lines += [
        "", "*Most* is the largest share among the designs of a line; the other columns are means over them. The "
        "columns from *right choice* on are about the growing designs. If no setting is certified, that is no "
        "right choice, with benefit 0. The last column says how much better the chosen setting looks on the "
        "items that chose it than it is. `judge --split` measures it on other items.", "", AGAIN, "",
    ]  # fmt: skip
    for truth in TRUTHS:
        lines += [f"## {truth.capitalize()}", "", *_designs(truth, [row for row in rows if row["truth"] == truth]), ""]
    return "\n".join(lines).rstrip() + "\n"


def summary(rows: list[Row]) -> str:
    """Return how many designs hold, the largest share of wrong choices, and where the rules find nothing."""
    failing = [row for row in rows if _fault(row)]
    worst = [max(_share(row, "certified", "false") for row in rows if row["delta"] == delta) for delta in DELTAS]
    told = " and ".join(f"{share:.4f} at delta {delta:g}" for share, delta in zip(worst, DELTAS, strict=True))
    growing = [row for row in rows if row["truth"] == "growing"]
    lines = [
        f"A design holds if the 99 % interval of its share of wrong choices does not lie wholly above delta. "
        f"{len(rows) - len(failing)} of {len(rows)} designs hold. The largest share is {told}. The share itself is "
        "above "
        f"delta in {sum(_share(row, 'certified', 'false') > row['delta'] for row in rows)} designs: a share of "
        f"{rows[0]['sets']:,} tables varies by chance, and designs that share random numbers vary together."
    ]
    for clustered, name in ((False, "rows"), (True, "clusters")):
        here = [row for row in growing if row["clustered"] is clustered]
        for units in sorted({row["units"] for row in here}):
            shares = [[_share(row, rule, "good") for row in here if row["units"] == units] for rule in RULES]
            by_judge, by_hoeffding = map(_span, shares)
            lines.append(f"With {units:,} {name} judge finds a right setting {by_judge}, Hoeffding {by_hoeffding}.")
    return "\n".join([lines[0], "", *(f"- {line}" for line in lines[1:]), *(f"- FAILS: {row}" for row in failing)])


def _span(shares: list[float]) -> str:
    low, high = f"{min(shares):.2f}", f"{max(shares):.2f}"
    if not max(shares):
        return "never"
    return f"in {low} of tables" if low == high else f"in {low} to {high} of tables"


def _fault(row: Row) -> str:
    return fault({**row, "certified": row["certified"]["false"], "effect": 0})


def _share(row: Row, rule: str, figure: str) -> float:
    return row[rule][figure] / row["sets"]


def _groups(rows: list[Row]) -> list[list[Row]]:
    def key(row: Row) -> tuple[bool, int, float]:
        return row["clustered"], row["units"], row["delta"]

    return [list(group) for _, group in itertools.groupby(sorted(rows, key=key), key)]


def _group(group: list[Row]) -> list[str]:
    limits, growing = ([row for row in group if row["truth"] == truth] for truth in TRUTHS)

    def most(rows: list[Row], rule: str) -> str:
        return f"{max(_share(row, rule, 'false') for row in rows):.4f}"

    def mean(rule: str, figure: str) -> float:
        return sum(_share(row, rule, figure) for row in growing) / len(growing)

    choices = mean("certified", "good") + mean("certified", "false")
    first = group[0]
    return [
        _units(first), f"{first['delta']:g}", str(len(group)), most(limits, "certified"), most(limits, "hoeffding"),
        most(growing, "certified"), *(f"{mean(rule, 'good'):.3f}" for rule in RULES),
        *(f"{mean(rule, 'benefit'):.3f}" for rule in RULES),
        f"{mean('certified', 'excess') / choices:+.3f}" if choices else "-",
    ]  # fmt: skip


def _units(row: Row) -> str:
    return f"{row['units']:,} {'clusters' if row['clustered'] else 'rows'}"


def _designs(truth: str, rows: list[Row]) -> list[str]:
    columns = ["units", "harms", "correlation", "delta", "wrong: judge", "Hoeffding", "verdict"]
    columns += ["right: judge", "Hoeffding", "benefit: judge", "Hoeffding"] if truth == "growing" else []
    cells = []
    for row in sorted(rows, key=lambda row: (row["clustered"], row["units"], row["harms"], row["correlation"])):
        line = [_units(row), str(row["harms"]), f"{row['correlation']:g}", f"{row['delta']:g}"]
        line += [*(f"{_share(row, rule, 'false'):.4f}" for rule in RULES), _fault(row) or "holds"]
        if truth == "growing":
            line += [f"{_share(row, rule, figure):.3f}" for figure in ("good", "benefit") for rule in RULES]
        cells.append(line)
    return table(columns, cells)
