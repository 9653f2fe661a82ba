"""Plots as SVG text, to be put into a page as they are.

Text stays text, sizes follow the page, and nothing refers to another file.
"""

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

INK = "#1f2933"
MUTED = "#6b7785"
GRID = "#e4e8ed"
TRAIN = "#9aa7b5"
TEST = "#0b62a8"
LIMIT = "#b3261e"
LABEL_COLORS = (
    "#0b62a8", "#e69f00", "#2a9d6f", "#cc79a7", "#56b4e9",
    "#8c510a", "#6a51a3", "#b8b84a", "#d55e00", "#7f8c8d",
)  # fmt: skip
MAX_ROWS = 60

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,  # names of clients and labels may hold dollar signs
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
}
_SIZE = (5.2, 3.0)


def curves(
    name: str, train: Mapping[int, float], test: Mapping[int, float], *, share: bool
) -> str:
    """A metric over the rounds, of the training clients and of the evaluation.

    Args:
      name: Used in the plot's ids and its description.
      train: Values by number of rounds done; may be empty.
      test: The same of the evaluation.
      share: Whether the values are shares, shown in percent.

    Returns:
      SVG, or an empty string where there is no value at all.
    """
    if not train and not test:
        return ""
    with rc_context(_STYLE):
        figure, axes = _figure(_SIZE)
        _line(axes, train, "clients, while training", TRAIN)
        _line(axes, test, "evaluation", TEST)
        _rounds_axis(axes)
        if share:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.legend(loc="best", fontsize=9)
        last = list((test or train).values())[-1]
        return _svg(figure, name, f"{name} over the rounds; at the end {last:.4g}")


def budget(spent: Mapping[int, float], target: float | None) -> str:
    """The epsilon spent over the rounds, and the budget as a line."""
    if not spent:
        return ""
    with rc_context(_STYLE):
        figure, axes = _figure(_SIZE)
        _line(axes, spent, "spent", TEST)
        axes.fill_between(list(spent), list(spent.values()), color=TEST, alpha=0.08)
        if target is not None:
            axes.axhline(target, color=LIMIT, linewidth=1.2, linestyle=(0, (5, 3)))
            axes.annotate(
                f"budget {target:g}",
                (0.01, target),
                xycoords=("axes fraction", "data"),
                xytext=(0, -4),
                textcoords="offset points",
                va="top",
                color=LIMIT,
                fontsize=9,
            )
        axes.set_ylim(bottom=0)
        _rounds_axis(axes)
        last = list(spent.values())[-1]
        return _svg(
            figure, "epsilon", f"epsilon over the rounds; at the end {last:.4g}"
        )


def label_table(
    clients: Sequence[str], labels: Sequence[str], counts: Sequence[Sequence[int]]
) -> str:
    """Labels by client: stacked bars for few labels, a heat map for many.

    Of more than 60 clients, 60 are shown, evenly spaced by number of rows.
    """
    table = np.asarray(counts, np.int64).reshape([len(clients), len(labels)])
    rows = spaced_rows(table.sum(axis=1))
    names = [str(clients[row]) for row in rows]
    with rc_context(_STYLE):
        figure, axes = _figure((10.6, 1.1 + 0.2 * max(len(rows), 4)))
        if len(labels) <= len(LABEL_COLORS):
            _stacked_bars(axes, labels, table[rows])
        else:
            _heat_map(figure, axes, labels, table[rows])
        axes.set_yticks(range(len(rows)), names, fontsize=8)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        return _svg(figure, "labels", f"rows of each label at {len(rows)} clients")


def client_spread(accuracy: Mapping[str, float]) -> str:
    """Each client's accuracy, lowest first; a histogram for more than 60 clients.

    An empty string where there is no client.
    """
    if not accuracy:
        return ""
    names = sorted(accuracy, key=lambda name: accuracy[name])
    values = np.array([accuracy[name] for name in names], np.float64)
    median = float(np.median(values))
    with rc_context(_STYLE):
        figure, axes = _figure((10.6, 3.2))
        if len(names) <= MAX_ROWS:
            _lollipops(axes, names, values)
            axes.axhline(median, color=LIMIT, linewidth=1.2, linestyle=(0, (5, 3)))
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        else:
            axes.hist(values, bins=30, color=TEST)
            axes.axvline(median, color=LIMIT, linewidth=1.2, linestyle=(0, (5, 3)))
            axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            axes.set_ylabel("clients")
        return _svg(
            figure,
            "spread",
            f"accuracy of {len(names)} clients: lowest {values[0]:.4g}, "
            f"median {median:.4g}, highest {values[-1]:.4g}",
        )


def spaced_rows(sizes: npt.NDArray[np.int64]) -> list[int]:
    """Positions of at most 60 clients, largest first, evenly spaced by rank."""
    order = np.argsort(-sizes, kind="stable")
    if len(order) > MAX_ROWS:
        order = order[np.linspace(0, len(order) - 1, MAX_ROWS).round().astype(int)]
    return [int(position) for position in order]


def _figure(size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.add_subplot()


def _line(axes: Axes, values: Mapping[int, float], label: str, color: str) -> None:
    if values:
        marker = "o" if len(values) <= 20 else ""
        axes.plot(
            list(values),
            list(values.values()),
            label=label,
            color=color,
            linewidth=2,
            marker=marker,
            markersize=3.5,
        )


def _rounds_axis(axes: Axes) -> None:
    axes.set_xlabel("rounds")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=False, axis="x")


def _stacked_bars(
    axes: Axes, labels: Sequence[str], table: npt.NDArray[np.int64]
) -> None:
    starts = np.zeros(len(table), np.int64)
    bars = []
    for column, color in zip(table.T, LABEL_COLORS, strict=False):
        places = range(len(table))
        bars.append(axes.barh(places, column, left=starts, color=color, height=0.8))
        starts = starts + column
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("rows")
    axes.legend(
        bars,
        [str(label) for label in labels],
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        fontsize=9,
        title="label",
    )


def _heat_map(
    figure: Figure, axes: Axes, labels: Sequence[str], table: npt.NDArray[np.int64]
) -> None:
    edges = np.arange(len(labels) + 1) - 0.5, np.arange(len(table) + 1) - 0.5
    mesh = axes.pcolormesh(*edges, table, cmap="Blues", rasterized=True)
    axes.grid(visible=False)
    every = -(-len(labels) // 40)
    places = range(0, len(labels), every)
    axes.set_xticks(places, [str(labels[i]) for i in places], rotation=90, fontsize=8)
    axes.set_xlabel("label")
    bar = figure.colorbar(
        mesh, ax=axes, label="rows", pad=0.01, aspect=50, fraction=0.03
    )
    bar.outline.set_visible(False)


def _lollipops(
    axes: Axes, names: Sequence[str], values: npt.NDArray[np.float64]
) -> None:
    places = np.arange(len(names))
    bottom = max(0.0, float(values.min()) - 0.1)
    axes.vlines(places, bottom, values, color="#c5d5e4", linewidth=2)
    axes.plot(places, values, "o", color=TEST, markersize=5)
    axes.set_ylim(bottom, min(1.02, float(values.max()) + 0.05))
    axes.set_xticks(places, names, rotation=90, fontsize=8)
    axes.grid(visible=False, axis="x")


def _svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an ``<svg>`` element with ids of its own, described in words."""
    file = io.StringIO()
    with rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        # Only the layout measures glyphs; the reader's browser draws them.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    return svg.replace("<svg", f'<svg role="img" aria-label="{description}"', 1)
