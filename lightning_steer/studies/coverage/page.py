"""The page of actual coverage."""

from collections import defaultdict
from typing import Any

from lightning_steer.studies.coverage.verdicts import fault, promises

Row = dict[str, Any]

HEAD = """# How often intervals and certificates hold

Every interval promises 95 %, every certificate a risk of at most delta. `make coverage` simulates both. A cell is one
design with one estimate: {sets:,} simulated data sets whose true values are known. Seeds are fixed: `SEED` in
`studies/coverage`, with a checksum of the cell's name. All cells took {minutes:.0f} minutes of processor time, which
two processes share.

This page is about `lightning_steer/statistics`. Reports, tables and studies take every interval and certificate from
there, and a test sees to it that nothing else makes one. Not simulated here are other smooth statistics that take the
same jackknife with Student's t: the by-pass score, cosines, R2, entanglement (the root mean square change of other
tasks' accuracy), rank correlations and the measures of anisotropy.

{verdict}

What "holds" means:

- A cell of intervals fails only if the 99 % interval of its coverage lies wholly below .93. So a cell that covers .92
  may hold, though it promises .95: read the columns of coverage below, not the word alone.
- A cell of false certificates fails if the 99 % interval of their share lies wholly above delta.
- A gate decides which rows are steered. It promises to steer at most a share eta of the rows that should be left
  alone. A cell of gates fails in the same way as one of certificates, by the share of data sets whose gate breaks
  this promise.
- The power of certificates, where there is something to find, promises nothing and cannot fail: it is counted apart.
- A missing interval counts as the full range, and so as covering; the column *no interval* gives its share. With 30
  clusters or more and an outcome in 20 % of the rows or more, at most 20 % may be missing.
- An open end (a high quantile of few rows) counts as the full range for the width.

No interval is given for means that have no upper bound and that a few rows may dominate: the KL of answers, of
attributes and of neutral text, and the ratio of perplexities. Student's interval, corrected for skew, is too narrow
for most of them. It held in these shares of 4,000 sets of 30, 100 and 500 texts: .919, .948 and .951 for a lognormal KL
with sigma 1; .840, .903 and .939 with sigma 1.5; .729, .823 and .889 with sigma 2; .738, .785 and .816 for a Pareto
distribution with exponent 1.5. For neutral text the probability lost, 1 - exp(-KL), does have an interval, since it
lies in [0, 1].

Means without a bound on either side, such as changes of a margin in nats, have no interval below 10 rows or clusters.
Means over networks, training seeds, draws or kinds of world have none below 20 of them. Above that their interval
promises 95 % for values that are no more skewed than an exponential distribution. Student's interval, corrected for
skew, held in these shares of 8,000 sets of independent rows (last columns: one row in ten, or in twenty, lies 5 away
from the others):

| rows | normal | exponential | lognormal, sigma 1 | sigma 1.5 | a tenth of rows 5 away | a twentieth |
|---|---|---|---|---|---|---|
| 6 | .962 | .909 | .860 | .760 | .549 | .759 |
| 10 | .959 | .929 | .880 | .774 | .657 | .633 |
| 15 | .959 | .938 | .900 | .807 | .798 | .610 |
| 20 | .956 | .943 | .910 | .822 | .879 | .655 |
| 30 | .949 | .954 | .922 | .850 | .954 | .782 |
| 50 | .954 | .952 | .933 | .876 | .961 | .916 |
| 100 | .952 | .956 | .938 | .897 | .966 | .961 |

So 10 rows are enough for an exponential distribution, 50 for a lognormal one with sigma 1, and 100 where one row in
twenty lies far off. With fewer such rows, or longer tails, the interval is too narrow; reports say so below their
table. Over few units a mean is given with the range of the units; over few rows it is given alone. Over five networks,
where a tenth of all networks fails, Student's interval held in .565 of the sets; over five near the ceiling (Beta 50,
.3) in .758.
"""
NOTES = {
    "mean of a real column, clusters": "Unbounded values: the end of the interval on the side of a skew is moved out. "
    "No interval can account for a tail that no row shows.",
    "share, very unequal clusters": "One cluster holds a third, or 60 %, of all rows. The interval is as wide as that "
    "of the few clusters that decide it.",
    "ICAT over terms": "At an SS of 50 and an LMS of 100 ICAT has its largest value, which no data exceed: "
    "intervals lie below it, up to 2.5 times as far as Student's.",
    "certificates": "*Certified* is a false certificate where the true effect is 0 or below, and the power where it is "
    "above. *Churn* is the share of rows that steering changes. Ten candidates share delta by Bonferroni's rule. "
    "Graded outcomes have half the effect that is named. In clusters the promise is of the mean over clusters, each "
    "counting once.",
    "change by a judge, corrected by labels": "A good judge sees 95 % of changes, a fair one 70 %, a blind one none; "
    "bias is the share of rows that it moves up. Where fewer than ten labelled rows changed, the labels count alone.",
    "rank p-values": "These are for a fitted value that had no more choice than the random draws. Where layer and "
    "strength were searched for it, no p-value is given: one more random direction, searched in the same way, is the "
    "best of 21 in .21 of simulated searches over 5 layers, in .36 over 12 and in .52 over 24.",
    "mean over independent units": "Failures: a tenth of the units lies anywhere below .5, the others near .94.",
    "gates": "*Wrong gates*: the true share of rows that should be left alone and pass a threshold chosen on n such "
    "rows; it should be at most eta. *Above eta*: the share of data sets in which it is larger; *mean share*: its mean "
    "over data sets. Rows that should be steered score two standard deviations higher. A fitted "
    "condition is the difference of means of n other rows in 32 dimensions. In clusters only the row with the largest "
    "score counts. This is safe, but costs power where rows of a cluster differ.",
    "several promises": "There are ten candidates. The promises are a benefit above 0 and falls of two or four harms "
    "below .05. *Certified* is, of false ones, a chosen candidate that breaks any promise, and of power one that "
    "keeps all. *At the limits* every candidate lies exactly at the limit of one promise, which breaks it; *growing*, "
    "the stronger half breaks the promises about harms. Hoeffding's bounds share delta among all candidates and "
    "promises. In clusters a fall below .05 takes some 145 clusters, so those here say nothing of clusters' power: "
    "[choices with wider limits](judge-coverage.md) do.",
}
CORRECTED = "change by a judge, corrected by labels"


def summary(rows: list[Row]) -> str:
    """Return each cell that fails, how many of each sort hold, and how far coverage falls short of .95."""
    failures = [
        f"{row['table']}: {row['design']} {row.get('estimate', '')}: {fault(row)}" for row in rows if fault(row)
    ]
    covered = [row for row in rows if "holds" in row]
    guarantees = [row for row in rows if "holds" not in row and promises(row)]
    lines = []
    for name, group in (("intervals", covered), ("false certificates, gates and rank p-values", guarantees)):
        if group:
            held_count = len(group) - sum(bool(fault(row)) for row in group)
            lines.append(f"{held_count:,} of {len(group):,} cells of {name} hold.")
    if covered:
        shares = [row["holds"] / row["sets"] for row in covered]
        counts = [sum(share < level for share in shares) for level in (0.95, 0.94, 0.93)]
        lines[0] += (
            f" The lowest actual coverage is {min(shares):.3f}; {counts[0]:,} cells cover less than .95, {counts[1]:,} "
            f"less than .94, {counts[2]:,} less than .93. In {sum(row['none'] == 1 for row in covered):,} cells no "
            "interval is given, which covers."
        )
    power = sum(not promises(row) for row in rows)
    lines += [f"{power:,} more cells show power."] if power else []
    return "\n".join([*failures, *lines])


def text(rows: list[Row], sets: int, seconds: float) -> str:
    """Return the page as Markdown: an overview, then a table for each kind."""
    tables: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        tables[row["table"]].append(row)
    lines = [HEAD.format(sets=sets, minutes=seconds / 60, verdict=summary(rows)), *_overview(tables)]
    for name, group in tables.items():
        lines += ["", f"## {name[0].upper()}{name[1:]}", ""]
        lines += [NOTES[name], ""] if name in NOTES else []
        lines += [narrower(group), ""] if name == CORRECTED else []
        lines += (
            _certificates(group)
            if "certified" in group[0]
            else _gates(group)
            if "broken" in group[0]
            else _ranks(group)
            if "at_most" in group[0]
            else _cells(group)
        )
    return "\n".join(lines) + "\n"


def narrower(rows: list[Row]) -> str:
    """Return in how many designs a judge's help narrows the interval, and name those where it does not.

    Args:
        rows: of the table of corrected changes, two a design; widths are compared as the table prints them.
    """
    widths: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        widths[row["design"]][row["estimate"]] = round(row["width"], 3)
    shares = {design: 1 - width["labels and judge"] / width["labels alone"] for design, width in widths.items()}
    told = []
    for kind in dict.fromkeys(design.rpartition(", ")[2] for design in shares):
        of_kind = {design.rpartition(", ")[0]: share for design, share in shares.items() if design.endswith(kind)}
        not_narrower = [design for design, share in of_kind.items() if share <= 0]
        told.append(
            f"With a {kind} it is narrower in {len(of_kind) - len(not_narrower)} of {len(of_kind)} designs, by at most "
            f"{max(of_kind.values()):.0%}, and NOT narrower at {'; '.join(not_narrower) or 'none'}."
        )
    return f"Is the interval narrower with the judge than by labels alone? {' '.join(told)}"


def _overview(tables: dict[str, list[Row]]) -> list[str]:
    lines = ["| table | method | cells | least coverage | mean coverage | fail |", "|---|---|---|---|---|---|"]
    for name, group in tables.items():
        fails = sum(bool(fault(row)) for row in group)
        if "holds" not in group[0]:
            count = sum(map(promises, group))
            lines.append(f"| {name} | - | {count} | - | - | {fails} |")
            lines += [f"| {name}, power | - | {len(group) - count} | - | - | - |"] if count < len(group) else []
            continue
        how = ", ".join(sorted({row["how"] for row in group}))
        coverage = [row["holds"] / row["sets"] for row in group]
        lines.append(
            f"| {name} | {how} | {len(group)} | {min(coverage):.3f} | {sum(coverage) / len(coverage):.3f} | {fails} |"
        )
    return lines


def _cells(rows: list[Row]) -> list[str]:
    lines = ["| design | estimate | coverage | mean width | no interval | |", "|---|---|---|---|---|---|"]
    for row in rows:
        width = "-" if row["width"] is None or row["width"] != row["width"] else f"{row['width']:.3f}"
        coverage, missing = row["holds"] / row["sets"], f"{row['none']:.0%}" if row["none"] else "-"
        lines.append(f"| {row['design']} | {row['estimate']} | {coverage:.3f} | {width} | {missing} | {_mark(row)} |")
    return lines


def _certificates(rows: list[Row]) -> list[str]:
    lines = ["| design | promise | certified | by Hoeffding's bound | |", "|---|---|---|---|---|"]
    for row in rows:
        promise = f"false, at most {row['delta']:g}" if row["effect"] <= 0 else "power"
        certified, other = (row[name] / row["sets"] for name in ("certified", "hoeffding"))
        lines.append(f"| {row['design']} | {promise} | {certified:.4f} | {other:.4f} | {_mark(row)} |")
    return lines


def _gates(rows: list[Row]) -> list[str]:
    lines = [
        "| design | wrong gates above eta | promised | mean share of wrong gates | power | |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        share, wrong, power = row["broken"] / row["sets"], row["wrong"], row["power"]
        lines.append(f"| {row['design']} | {share:.4f} | {row['delta']:g} | {wrong:.4f} | {power:.3f} | {_mark(row)} |")
    return lines


def _ranks(rows: list[Row]) -> list[str]:
    lines = [
        "| design | p at most 1/21 (.048) | at most 2/21 (.095) | at most 10/21 (.476) | |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        shares = " | ".join(f"{row['at_most'][j - 1] / row['sets']:.4f}" for j in (1, 2, 10))
        lines.append(f"| {row['design']} | {shares} | {_mark(row)} |")
    return lines


def _mark(row: Row) -> str:
    return fault(row) or ("holds" if promises(row) else "-")
