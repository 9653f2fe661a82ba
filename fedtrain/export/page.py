"""A release on one page: its table, two plots, its guarantee and its lineage."""

from collections.abc import Callable
from pathlib import Path

import jinja2

from fedtrain.core.files import write_atomically
from fedtrain.export.plots import against_size
from fedtrain.export.record import PAGE, Release, Variant

STATUS = {
    "simulation": "SIMULATION: the noise was simulated, so nothing is guaranteed",
    "no_privacy": "NO PRIVACY: trained without any guarantee",
}


def write_page(release: Release, folder: Path) -> None:
    """Writes ``folder/release.html``, which refers to no other file."""
    write_atomically(folder / PAGE, page_text(release))


def page_text(release: Release) -> str:
    """The page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fedtrain.export", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("release.html.jinja").render(
        release=release,
        badge=STATUS[release.release_status],
        plots=_plots(release),
    )


def _plots(release: Release) -> list[tuple[str, str]]:
    drawn = {
        "Accuracy against size": (_accuracy, "accuracy in %"),
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


def _accuracy(variant: Variant) -> float:
    return 100.0 * variant.scores["accuracy"]


def _latency(variant: Variant) -> float:
    return 1e6 * variant.latency_1.p50_s
