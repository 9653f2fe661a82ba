"""Plots of a release, as SVG text."""

import io
from collections.abc import Mapping

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from fedtrain.tracking.plots import GRID, INK, LABEL_COLORS, MUTED

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fedtrain",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def against_size(points: Mapping[str, tuple[float, float]], label: str) -> str:
    """One dot for each of ``points``: kilobytes after gzip, and what ``label`` says."""
    with rc_context(_STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(5.2, 3.2), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        for i, (name, (size, value)) in enumerate(points.items()):
            color = LABEL_COLORS[i % len(LABEL_COLORS)]
            axes.plot([size], [value], "o", color=color, label=name)
        axes.set_xscale("log")
        axes.set_xlabel("kilobytes after gzip")
        axes.set_ylabel(label)
        axes.grid(color=GRID)
        axes.legend(fontsize=8)
        content = io.StringIO()
        figure.savefig(content, format="svg", metadata={"Date": None})
    text = content.getvalue()
    return text[text.index("<svg") :]
