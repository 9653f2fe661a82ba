"""A release on one page: its table, two plots, its guarantee and its lineage."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from fedtrain.core.files import write_atomically
from fedtrain.core.pages import page_environment
from fedtrain.export.plots import against_size
from fedtrain.export.record import PAGE, Release, Variant
from fedtrain.export.scores import ERRORS

STATUS = {
    "simulation": "SIMULATION: the noise was simulated, so nothing is guaranteed",
    "release": "RELEASE: trained with noise for release; the statement holds",
    "no_privacy": "NO PRIVACY: trained without any guarantee",
    "raw_calibration": "VOID: calibrated on raw private rows, nothing is guaranteed",
}


def write_page(release: Release, folder: Path) -> None:
    """Writes ``folder/release.html``, which refers to no other file."""
    write_atomically(folder / PAGE, page_text(release))


def page_text(release: Release) -> str:
    """The page as HTML."""
    environment = page_environment("fedtrain.export", "templates")
    environment.filters["in_words"] = _in_words
    return environment.get_template("release.html.jinja").render(
        release=release,
        badge=STATUS[release.release_status],
        plots=_plots(release),
    )


def _plots(release: Release) -> list[tuple[str, str]]:
    drawn = {
        "Quality against size": (_quality, _quality_label(release)),
        "Latency against size": (_latency, "median microseconds, one row"),
    }
    return [
        (title, against_size(_points(release, value), label))
        for title, (value, label) in drawn.items()
    ]


def _points(
    release: Release, value: Callable[[Variant], float]
) -> dict[str, tuple[float, float]]:
    return {
        f"{v.target} {v.name}": (v.gzip_bytes / 1000, value(v))
        for v in release.variants
    }


def _in_words(scores: Mapping[str, float]) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {value:.4g}"
        if name in ERRORS
        else f"{name.replace('_', ' ')} {100.0 * value:.2f} %"
        for name, value in scores.items()
    )


def _quality(variant: Variant) -> float:
    if "accuracy" in variant.scores:
        return 100.0 * variant.scores["accuracy"]
    return next(iter(variant.scores.values()), math.nan)


def _quality_label(release: Release) -> str:
    name = next(iter(release.source_scores), "score")
    return "accuracy in %" if name == "accuracy" else name.replace("_", " ")


def _latency(variant: Variant) -> float:
    return 1e6 * variant.latency_1.p50_s
