"""The operator's page as HTML, from its plain values; it works without JavaScript."""

import functools
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2
import markupsafe

from aggregator import page_words
from aggregator.charts import Chart, line_chart
from fedtrain.core.pages import page_environment

_FIRST_METRICS = ("test_accuracy", "test_loss", "accuracy", "loss")
_MOST_CHARTS = 6


def page(state: Mapping[str, Any]) -> str:
    """The whole page."""
    return _environment().get_template("page.html.jinja").render(**_shown(state))


def fragment(state: Mapping[str, Any]) -> str:
    """What changes of it: the script puts it in the place of what was there."""
    return _environment().get_template("live.html.jinja").render(**_shown(state))


def login_page(problem: str = "") -> str:
    """The form that asks for the token."""
    return _environment().get_template("login.html.jinja").render(problem=problem)


def charts(
    history: Sequence[Mapping[str, Any]], privacy: Mapping[str, Any] | None
) -> list[Chart]:
    """A chart for each metric that was released, and one of epsilon."""
    names = {name for row in history for name in row["metrics"]}
    ordered = [name for name in _FIRST_METRICS if name in names]
    ordered += sorted(names.difference(ordered))
    found = [
        line_chart(
            name,
            {  # rounds that were not evaluated leave no gap
                row["rounds_done"]: row["metrics"][name]
                for row in history
                if name in row["metrics"]
            },
        )
        for name in ordered[:_MOST_CHARTS]
    ]
    if privacy is not None:
        spent = {row["rounds_done"]: row["spent_epsilon"] for row in history}
        found.append(
            line_chart(
                "epsilon spent",
                spent,
                from_zero=True,
                limit=privacy["epsilon"],
                limit_text=f"approved {privacy['epsilon']:.4g}",
            )
        )
    return [chart for chart in found if chart is not None]


@functools.cache
def style() -> str:
    """The style sheet."""
    return _file("page.css")


@functools.cache
def script() -> str:
    """The script that keeps the page fresh."""
    return _file("live.js")


def _shown(state: Mapping[str, Any]) -> dict[str, Any]:
    word, tone = page_words.pill(state)
    now = state["now_unix_ms"]
    return {
        **state,
        "headline": page_words.headline(state),
        "closing": page_words.closing(state),
        "attention": page_words.attention(state),
        "pill": {"word": word, "tone": tone},
        "charts": charts(state["history"], state["privacy"]),
        "seen": {
            partner["client_id"]: page_words.presence(partner, now)
            for partner in state["partners"]
        },
        "metric_names": _metric_names(state["history"]),
        "connected": sum(
            page_words.presence(partner, now)[1] == "good"
            for partner in state["partners"]
        ),
    }


def _metric_names(history: Sequence[Mapping[str, Any]]) -> list[str]:
    names = {name for row in history for name in row["metrics"]}
    first = [name for name in _FIRST_METRICS if name in names]
    return [*first, *sorted(names.difference(first))][:_MOST_CHARTS]


def _number(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _coded(text: str) -> markupsafe.Markup:
    """``text`` with what stands between backticks as code; all of it escaped."""
    parts = [markupsafe.escape(part) for part in text.split("`")]
    shown = [
        markupsafe.Markup("<code>{}</code>").format(part) if number % 2 else part
        for number, part in enumerate(parts)
    ]
    return markupsafe.Markup("").join(shown)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = page_environment("aggregator", "templates")
    environment.filters |= {
        "coded": _coded,
        "number": _number,
        "clock": page_words.clock,
        "day": page_words.day,
    }
    return environment


def _file(name: str) -> str:
    return (resources.files("aggregator") / "templates" / name).read_text("utf-8")
