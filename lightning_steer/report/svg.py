"""Small charts as SVG text, embedded in a page: lines with intervals, and bars."""

import math
from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element, SubElement, tostring

from markupsafe import Markup

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 58, 10, 10, 40
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's palette, which colour-blind readers can distinguish."""
DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 2", "10 4", "4 2")
"""Lines differ by their dashes too: some readers and prints have no colours."""

Column = Sequence[float | None]
KEYS = ("value", "low", "high")


def lines(
    x: Sequence[float],
    curves: Mapping[str, Mapping[str, Column]],
    colours: Sequence[str],
    mark: float | None,
    titles: tuple[str, str],
    band: Mapping[str, Column] | None = None,
    share: bool = True,
) -> Markup:
    """Return a chart of measures with their intervals against ``x``.

    Args:
        x: positions of the measurements.
        curves: ``{label: {"value", "low", "high"}}``; values that are not finite are skipped.
        colours: one for each curve, repeated as needed.
        mark: an ``x`` that is marked; None for none.
        titles: titles of the two axes.
        band: ``{"low", "high"}`` at the same ``x``, drawn grey behind the curves; None for none.
        share: whether values are shares, so that the axis reaches 1.
    """
    band_values = [] if band is None else [*band["low"], *band["high"]]
    values = _numbers([*band_values, *(value for curve in curves.values() for name in KEYS for value in curve[name])])
    top = 1.0 if share and max(values, default=1.0) <= 1 else max(values, default=1.0)
    low, high = min(0.0, *x), max(x)
    place = _Place((low, high if high > low else low + 1), _scale(min([0.0, *values]), top))
    chart = place.chart(titles, [tick for tick in _scale(low, high) if low <= tick <= high])
    if mark is not None and low <= mark <= high:
        _line(chart, "mark", place.x(mark), TOP, place.x(mark), HEIGHT - BOTTOM)
    if band is not None:
        outline = place.points([*_points(x, band["high"]), *reversed(_points(x, band["low"]))])
        _draw(chart, "polygon", points=outline, kind="band")
    for i, curve in enumerate(curves.values()):
        colour = colours[i % len(colours)]
        low_points, high_points, points = (_points(x, curve[name]) for name in ("low", "high", "value"))
        if low_points and high_points:
            outline = place.points([*high_points, *reversed(low_points)])
            _draw(chart, "polygon", points=outline, fill=colour, opacity=".15")
        style = {"fill": "none", "stroke": colour, "stroke_width": 2, "stroke_dasharray": DASHES[i % len(DASHES)]}
        _draw(chart, "polyline", points=place.points(points), **style)
        for a, v in points:
            _draw(chart, "circle", cx=place.x(a), cy=place.y(v), r=2.2, fill=colour)
    return _markup(chart, f"{titles[1]} against {titles[0]}: {', '.join(curves)}")


def scatter(
    points: Mapping[str, tuple[Mapping[str, float | None], Mapping[str, float | None]]],
    colour: str,
    marks: Sequence[float],
    titles: tuple[str, str],
) -> Markup:
    """Return a chart of points with the intervals of both of their values.

    Args:
        points: ``{label: (across, up)}``, each ``{"value", "low", "high"}``; without a finite value it is left out.
        colour: of all points.
        marks: values across that are marked by a line.
        titles: titles of the two axes.
    """
    finite = {label: pair for label, pair in points.items() if len(_numbers([one["value"] for one in pair])) == 2}
    across, up = (
        _numbers([ends[name] for ends in (pair[side] for pair in finite.values()) for name in KEYS]) for side in (0, 1)
    )
    scales = _scale(min([0.0, *across, *marks]), max([0.0, *across, *marks])), _scale(min([0.0, *up]), max([0.0, *up]))
    place = _Place(*scales)
    chart = place.chart(titles, scales[0])
    for mark in marks:
        _line(chart, "mark", place.x(mark), TOP, place.x(mark), HEIGHT - BOTTOM)
    for label, (right, above) in finite.items():
        x, y = (to(float(one["value"] or 0)) for to, one in ((place.x, right), (place.y, above)))
        if len(ends := _numbers([right["low"], right["high"]])) == 2:
            _line(chart, "whisker", place.x(ends[0]), y, place.x(ends[1]), y)
        if len(ends := _numbers([above["low"], above["high"]])) == 2:
            _line(chart, "whisker", x, place.y(ends[0]), x, place.y(ends[1]))
        _draw(chart, "circle", cx=x, cy=y, r=3.5, fill=colour)
        _draw(chart, "text", label, x=f"{x + 5:.1f}", y=f"{y - 5:.1f}")
    return _markup(chart, f"{titles[1]} against {titles[0]}")


def bars(columns: Mapping[str, Column], colour: str, titles: tuple[str, str]) -> Markup:
    """Return a chart of bars with intervals, indexed from 0; entries without a value are shaded."""
    value = columns["value"]
    numbers = _numbers([v for name in KEYS for v in columns[name]])
    place = _Place((-0.5, len(value) - 0.5), _scale(min([0.0, *numbers]), max([1e-12, *numbers])))
    chart, half = place.chart(titles, _whole(len(value))), 0.4
    for i, (v, low, high) in enumerate(zip(value, columns["low"], columns["high"], strict=True)):
        left, right, middle = place.x(i - half), place.x(i + half), place.x(i)
        width = f"{right - left:.1f}"
        if v is None or not math.isfinite(v):
            _draw(chart, "rect", x=left, y=TOP, width=width, height=HEIGHT - TOP - BOTTOM, kind="meant")
            continue
        top, bottom = place.y(max(v, 0.0)), place.y(min(v, 0.0))
        _draw(chart, "rect", x=left, y=top, width=width, height=f"{max(bottom - top, 0):.1f}", fill=colour)
        if low is not None and high is not None and math.isfinite(low + high):
            _line(chart, "whisker", middle, place.y(low), middle, place.y(high))
    return _markup(chart, f"{titles[1]} by {titles[0]}")


def key(labels: Sequence[str], colours: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return the label, colour and dashes of each line, for the legend that goes below a chart."""
    return [(label, colours[i % len(colours)], DASHES[i % len(DASHES)]) for i, label in enumerate(labels)]


class _Place:
    """Maps values to points of the drawing."""

    def __init__(self, across: Sequence[float], up: Sequence[float]) -> None:
        self.across, self.up = across, up

    def x(self, value: float) -> float:
        low, high = self.across[0], self.across[-1]
        return round(LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        low, high = self.up[0], self.up[-1]
        return round(HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    def points(self, pairs: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{self.x(a)},{self.y(b)}" for a, b in pairs)

    def chart(self, titles: tuple[str, str], ticks: Sequence[float]) -> Element:
        """Return a chart with its axes."""
        floor = HEIGHT - BOTTOM
        chart = Element("svg", {"class": "chart", "viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img"})
        _line(chart, "axis", LEFT, floor, WIDTH - RIGHT, floor)
        for tick in ticks:
            _draw(chart, "text", f"{tick:g}", x=self.x(tick), y=floor + 14, text_anchor="middle")
        for tick in self.up:
            y = self.y(tick)
            _line(chart, "grid", LEFT, y, WIDTH - RIGHT, y)
            _draw(chart, "text", f"{tick:.4g}", x=LEFT - 5, y=y + 4, text_anchor="end")
        middle = (TOP + floor) / 2
        _draw(chart, "text", titles[0], x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 6, text_anchor="middle")
        _draw(chart, "text", titles[1], x=10, y=middle, text_anchor="middle", transform=f"rotate(-90 10 {middle})")
        return chart


def _scale(low: float, high: float) -> list[float]:
    """Return four to seven round numbers, from below ``low`` to above ``high``."""
    if not high > low:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def _whole(count: int) -> list[int]:
    step = max(1, 10 ** math.floor(math.log10(max(count, 1))) // 2 or 1)
    return list(range(0, count, step if count / step <= 12 else 2 * step))


def _numbers(values: Column) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]


def _points(x: Sequence[float], column: Column) -> list[tuple[float, float]]:
    return [(a, value) for a, value in zip(x, column, strict=True) if value is not None and math.isfinite(value)]


def _draw(chart: Element, tag: str, text: str = "", **attributes: object) -> None:
    """Add an element to the chart; ``kind`` is its class, and ``_`` in the name of an attribute stands for ``-``."""
    names = {name: "class" if name == "kind" else name.replace("_", "-") for name in attributes}
    SubElement(chart, tag, {names[name]: str(value) for name, value in attributes.items()}).text = text or None


def _line(chart: Element, kind: str, x1: float, y1: float, x2: float, y2: float) -> None:
    _draw(chart, "line", x1=x1, y1=y1, x2=x2, y2=y2, kind=kind)


def _markup(chart: Element, label: str) -> Markup:
    """Return the chart as text that a template does not escape again: ElementTree has escaped it."""
    chart.set("aria-label", label)
    return Markup(tostring(chart, "unicode"))  # noqa: S704
