"""Write ``docs/theory.md`` and its figures from the numbers."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lightning_steer.report.figures import COLOURS, DASHES, below
from lightning_steer.report.files import write_figure, write_text
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.intervals import mean_over_units
from lightning_steer.statistics.kinds import Quantile
from lightning_steer.studies.theory import softmax, worlds
from lightning_steer.studies.theory.directions import PENALTIES, TOLERANCE
from lightning_steer.studies.theory.measuring import CONTEXTS, MANY, ROWS

Draws = Sequence[Mapping[str, Any]]
"""Numbers of each draw, by goal."""
SIMULATIONS = 20
KINDS = ("tasks", "traits")
SHOWN = 1
"""Place of the tables' effect in :data:`softmax.EFFECTS`."""


def kind(goal: str) -> str:
    """Return whether a goal is of a labelling task or of traits."""
    return "traits" if goal in ("town", "trade") else "tasks"


def over(draws: Draws, value: Callable[[Any], Any]) -> Estimate:
    """Return the mean over draws of the mean over goals of ``value``."""
    return mean_over_units([np.mean([value(goal) for goal in draw.values()]) for draw in draws])


def off_target(draws: Draws, goal_kind: str, form: str, effect: int, which: int) -> Estimate:
    """Return the median over draws of a form's mean KL over the goals of a kind; of random directions the median."""
    columns = []
    for draw in draws:
        goals = [goal["other"] for name, goal in draw.items() if kind(name) == goal_kind]
        names = [name for name in goals[0] if name == form or name.startswith(f"{form} ")]
        columns.append(np.median([np.mean([goal[name][effect][which] for goal in goals]) for name in names]))
    return Quantile(0.5).estimate(columns)[0]


def short(estimate: Estimate) -> str:
    """Return an estimate of a KL, with fewer digits the larger it is."""
    return estimate.text(4 if estimate.value < 0.01 else 3 if estimate.value < 1 else 1)


def forms(draws: Draws) -> list[str]:
    """Return the forms, random directions as one."""
    names = next(iter(draws[0].values()))["other"]
    return list(dict.fromkeys("random" if name.startswith("random ") else name for name in names))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join([f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)])


def write(path: Path, numbers: Mapping[str, Draws], many_rows: Mapping[str, Any]) -> None:
    """Write the page and its two figures; ``numbers``: draws of each model; ``many_rows``: those of more prompts."""
    simulated = {n: [worlds.simulate(n, seed) for seed in range(SIMULATIONS)] for n in worlds.ROWS}
    write_figure(angle_figure(numbers, simulated), path.parent / "figures", "theory_angles")
    write_figure(off_target_figure(numbers), path.parent / "figures", "theory_off_target")
    template = Template(Path(__file__).with_suffix(".md").read_text())
    write_text(path, template.substitute(_values(numbers, many_rows, simulated)))


def _values(
    numbers: Mapping[str, Draws], many_rows: Mapping[str, Any], simulated: Mapping[int, list[Any]]
) -> dict[str, str]:
    """Return the text of every place in the template."""
    both = [{f"{model} {goal}": of for model, draw in zip(numbers, pair, strict=True) for goal, of in draw.items()}
            for pair in zip(*numbers.values(), strict=True)]  # fmt: skip
    first = numbers[next(iter(numbers))][0]
    goals, layers = list(first), len(next(iter(first.values()))["r2"])

    def angle(name: str) -> str:
        return over(both, lambda goal: goal["angles"][name]).text(0)

    def trait(form: str) -> str:
        return short(off_target(numbers[next(iter(numbers))], "traits", form, SHOWN, 1))

    first_column = PENALTIES.index(1.0) + 1
    many_w = [a for goal in many_rows.values() for a in goal["angles"]["w, least squares"]]
    names = list(first[goals[0]]["angles"])
    exact = worlds.world().exact()
    columns = [f"{network}, {n}" for network in worlds.world().networks for n in ("exact", *worlds.ROWS)]
    world_rows = []
    for name in names:
        cells = [name]
        for network in worlds.world().networks:
            cells.append(f"{worlds.angles(exact)[network][name]:.1f}")
            cells += [mean_over_units([worlds.angles(d)[network][name] for d in draws]).text(1)
                      for draws in simulated.values()]  # fmt: skip
        world_rows.append(cells)
    per_layer = [
        [
            f"{model}, {layer}",
            over(draws, lambda goal, k=layer: goal["r2"][k][0]).text(3),
            *(over(draws, lambda goal, k=layer, n=name: goal["angles"][n][k]).text(0) for name in names),
            over(draws, lambda goal, k=layer: goal["readings"][k]).text(2),
            over(draws, lambda goal, k=layer: goal["spread"][k]).text(0),
        ]
        for model, draws in numbers.items()
        for layer in range(layers)
    ]
    by_goal = []
    for goal in goals:
        cells = [goal]
        for name in names:
            means = [np.mean([draw[goal]["angles"][name] for draw in draws], 0) for draws in numbers.values()]
            cells.append(f"{np.mean(means):.0f} ({np.min(means):.0f} to {np.max(means):.0f})")
        by_goal.append(cells)
    head = [f"{model}, {k}, {what}" for k in KINDS for model in numbers for what in ("others", "full")]
    other = [
        [form, *(short(off_target(draws, k, form, SHOWN, which)) for k in KINDS for draws in numbers.values()
                 for which in (1, 0))]
        for form in forms(numbers[next(iter(numbers))])
    ]  # fmt: skip
    count = len(both)
    width = 96
    return {
        "r2": over(both, lambda goal: np.mean(goal["r2"], 0)[0]).text(3),
        "angle_w": angle("w, least squares"),
        "angle_sigma": angle("Sigma w"),
        "angle_mean": angle("mean difference"),
        "angle_r2": angle("w, penalty by R2"),
        "angle_good": angle("w, largest good penalty"),
        "chance": f"90 with a standard deviation of {np.degrees(1 / np.sqrt(width)):.0f}",
        "r2_one": over(both, lambda goal: np.mean(goal["r2"], 0)[first_column]).text(3),
        "angle_one": over(both, lambda goal: np.mean(goal["path"], 0)[first_column]).text(0),
        "many": str(MANY[0]),
        "many_w": f"{min(many_w):.0f} to {max(many_w):.0f}",
        "trait_g": trait("g (Euclid)"),
        "trait_dual": trait("F^-1 g (dual)"),
        "trait_mean": trait("mean difference"),
        "trait_w": trait("w, least squares"),
        "readings": over(both, lambda goal: goal["readings"]).text(2),
        "simulations": str(SIMULATIONS),
        "tolerance": f"{TOLERANCE:g}",
        "worlds": table(["direction", *columns], world_rows),
        "world_r2": f"{float(exact.r2[0]):.3f}",
        "goals": ", ".join(goals),
        "fit": str(ROWS[0]),
        "choice": str(ROWS[1]),
        "test": str(ROWS[2]),
        "unit": f"{count} draws of the prompts"
        + (", 95 % intervals over draws in square brackets" if count >= 20 else ", their range in round brackets"),
        "angles": table(["model, layer", "R2", *names, "readings", "spread"], per_layer),
        "by_goal": table(["goal", *names], by_goal),
        "contexts": str(CONTEXTS),
        "draws": str(count),
        "off_target": table(["form", *head], other),
    }


def angle_figure(numbers: Mapping[str, Draws], simulated: Mapping[int, list[Any]]) -> Figure:
    """Draw the angle of ridge's w to the causal direction against the penalty, with R2, in the world and the models."""
    figure = Figure(figsize=(4.3 * (1 + len(numbers)), 4), layout="constrained")
    panels = figure.subplots(1, 1 + len(numbers), sharey=True)
    x = [PENALTIES[0] / 10, *PENALTIES]
    exact = worlds.world().exact()
    for (network, g), colour in zip(worlds.world().networks.items(), COLOURS, strict=False):
        panels[0].plot(x, worlds.degrees(exact.path, g), color=colour, label=f"{network}, exact")
        fitted = np.mean([worlds.degrees(d.path, g).numpy() for d in simulated[worlds.ROWS[0]]], 0)
        panels[0].plot(x, fitted, "o", color=colour, markersize=3, label=f"the same, {worlds.ROWS[0]} rows")
    panels[0].plot(x, 100 * exact.r2.numpy(), color="black", linestyle=":", label="R2, hundredths")
    panels[0].set_title("known world", fontsize=10)
    for axes, (model, draws) in zip(panels[1:], numbers.items(), strict=True):
        goals = [goal for draw in draws for goal in draw.values()]
        paths = np.mean([goal["path"] for goal in goals], 0)
        for layer, (path, colour, dashes) in enumerate(zip(paths, COLOURS, DASHES, strict=False)):
            axes.plot(x, path, color=colour, linestyle=dashes, label=f"after block {layer}")
        r2 = np.mean([goal["r2"] for goal in goals], (0, 1))
        axes.plot(x, 100 * r2, color="black", linestyle=":", label="R2, hundredths")
        axes.set_title(f"pocket model, {model}", fontsize=10)
    for axes in panels:
        axes.set(xscale="log", xlabel="penalty, in mean variances (left end: 0)", ylim=(-5, 105))
        axes.legend(fontsize=7, frameon=False, loc="center left" if axes is panels[0] else "lower left")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("degrees, w to the causal direction")
    return figure


def off_target_figure(numbers: Mapping[str, Draws]) -> Figure:
    """Draw each form's KL among the other tokens against the effect, for tasks and traits of the first model."""
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    model, draws = next(iter(numbers.items()))
    for axes, goal_kind in zip(panels, KINDS, strict=True):
        for i, form in enumerate(forms(draws)):
            values = [off_target(draws, goal_kind, form, e, 1).value for e in range(len(softmax.EFFECTS))]
            style = {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i // len(COLOURS)]}
            axes.plot(softmax.EFFECTS, values, marker="os^"[i % 3], markersize=4, label=form, **style)
        axes.set(xscale="log", yscale="log", xlabel="effect: rise of the margin, nats", title=f"{goal_kind}, {model}")
        axes.set_xticks(softmax.EFFECTS, [f"{e:g}" for e in softmax.EFFECTS])
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("KL among the other tokens, nats")
    below(figure, *panels)
    return figure
