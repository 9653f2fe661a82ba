"""Line charts as SVG without a style attribute in them: the page's policy allows none.

matplotlib writes styles into every element, which a strict Content-Security-Policy
refuses, and takes a second and 60 MB to load beside the aggregator's port.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_WIDTH, _HEIGHT = 380, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 10, 14, 30
_MOST_POINTS = 400
_MOST_MARKS = 24
_STEPS = (1, 2, 2.5, 5, 10)


class Tick(NamedTuple):
    """A place on an axis, in the picture's units, and its label."""

    at: float
    text: str


class Chart(NamedTuple):
    """What the template draws.

    Attributes:
      name: Of the metric.
      described: The curve in a sentence, for who cannot see it.
      points: Of the line, as SVG wants them; a gap begins another line.
      marks: Where single points are drawn.
      x_ticks: Rounds.
      y_ticks: Values.
      limit: The height of a limit that is drawn across; None for none.
      limit_text: What it is.
    """

    name: str
    described: str
    points: tuple[str, ...]
    marks: tuple[tuple[float, float], ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    limit: float | None
    limit_text: str
    width: int = _WIDTH
    height: int = _HEIGHT
    left: int = _LEFT
    right: int = _WIDTH - _RIGHT
    bottom: int = _HEIGHT - _BOTTOM


def line_chart(
    name: str,
    values: Mapping[int, float | None],
    *,
    from_zero: bool = False,
    limit: float | None = None,
    limit_text: str = "",
) -> Chart | None:
    """``values`` by number of rounds done; None where there is none to draw.

    Args:
      name: Of the metric.
      values: None stands for a value that was not finite: the line has a gap there.
      from_zero: Whether the axis begins at 0.
      limit: A value that is drawn across, and that the axis reaches.
      limit_text: What it is.
    """
    known = {x: y for x, y in values.items() if y is not None and math.isfinite(y)}
    if not known:
        return None
    heights = [*known.values(), *([limit] if limit is not None else [])]
    low, high = _range([*heights, 0.0] if from_zero else heights)
    y_values = nice_ticks(low, high)
    low, high = min(low, y_values[0]), max(high, y_values[-1])
    first, last = min(known), max(known)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / (last - first) if last > first else 0.5
        up = (y - low) / (high - low)
        right = _WIDTH - _RIGHT - _LEFT
        return (
            round(_LEFT + across * right, 1),
            round(_TOP + (1 - up) * (_HEIGHT - _TOP - _BOTTOM), 1),
        )

    runs = _thinned(values, known)
    placed = [[place(x, known[x]) for x in run] for run in runs]
    return Chart(
        name=name,
        described=_described(name, known),
        points=tuple(" ".join(f"{x},{y}" for x, y in run) for run in placed),
        marks=tuple(p for run in placed for p in run)
        if len(known) <= _MOST_MARKS
        else (),
        x_ticks=tuple(Tick(place(x, low)[0], str(x)) for x in _round_ticks(known)),
        y_ticks=tuple(Tick(place(first, y)[1], _label(y)) for y in y_values),
        limit=None if limit is None else place(first, limit)[1],
        limit_text=limit_text,
    )


def nice_ticks(low: float, high: float, *, about: int = 4) -> list[float]:
    """Round numbers from at most ``low`` to at least ``high``, ``about`` so many."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in _STEPS if power * factor >= raw * 0.999)
    start, stop = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(start, stop + 1)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if high > low:
        return low, high
    room = abs(low) * 0.1 or 1.0
    return low - room, high + room


def _thinned(
    values: Mapping[int, float | None], known: Mapping[int, float]
) -> list[list[int]]:
    """Rounds in lines without gaps; of many rounds some are drawn, the last always."""
    lines: list[list[int]] = [[]]
    for x in sorted(values):
        if x in known:
            lines[-1].append(x)
        elif lines[-1]:
            lines.append([])
    stride = math.ceil(len(known) / _MOST_POINTS)
    return [sorted({*line[::stride], line[-1]}) for line in lines if line]


def _round_ticks(known: Mapping[int, float]) -> list[int]:
    first, last = min(known), max(known)
    if last == first:
        return [first]
    step = max(1, math.ceil((last - first) / 6))
    return list(range(first, last + 1, step))


def _label(value: float) -> str:
    return f"{value:.6g}"


def _described(name: str, known: Mapping[int, float]) -> str:
    first, last = min(known), max(known)
    return (
        f"{name} over the rounds: {known[first]:.4g} after round {first}, "
        f"{known[last]:.4g} after round {last}"
    )
