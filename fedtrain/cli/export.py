"""``fedtrain export RUN --to server,edge``: a finished run becomes a release."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

import fedtrain
from fedtrain.cli.output import Format, note, show_json, show_table, show_text
from fedtrain.cli.quiet import load_tensorflow


def export(  # noqa: PLR0913 - one argument for each option of the command line
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run's folder, or 'latest'.")
    ],
    *,
    to: Annotated[
        str | None, typer.Option(help="Targets, such as server,edge.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Public rows to judge variants by; else the run's own."),
    ] = None,
    into: Annotated[
        Path | None, typer.Option(help="Where releases are; else RUN/export.")
    ] = None,
    max_accuracy_drop: Annotated[
        float | None, typer.Option(min=0.0, help="What a variant may lose, in points.")
    ] = None,
    accept_no_privacy: Annotated[
        bool | None,
        typer.Option(
            "--accept-no-privacy", help="Release a model trained without privacy."
        ),
    ] = None,
    accept_raw_calibration: Annotated[
        bool | None,
        typer.Option(
            "--accept-raw-calibration",
            help="Allow calibration on raw private rows; voids the guarantee.",
        ),
    ] = None,
    format: Annotated[Format, typer.Option(help="How to print the result.")] = (
        Format.text
    ),
) -> None:
    """Turn a finished run into a verified, signed release."""
    load_tensorflow()
    released = fedtrain.export_run(
        run,
        to=None if to is None else [name.strip() for name in to.split(",") if name],
        into=into,
        told=lambda text: note(text, style="dim"),
        public_rows=None if data is None else str(data),
        max_accuracy_drop=max_accuracy_drop,
        accept_no_privacy=accept_no_privacy,
        accept_raw_calibration=accept_raw_calibration,
    )
    values = released.record.model_dump(mode="json")
    if format is Format.json:
        show_json({"folder": str(released.folder), **values})
        return
    show_release(values, released.folder)


def show_release(values: Mapping[str, Any], folder: Path) -> None:
    """The record of the release in ``folder``: its variants, and what stands behind."""
    show_variants(values)
    show_text(f"\n{values['privacy_statement']}")
    show_text(f"Release status       {values['release_status']}")
    show_text(f"Spent by the export  {values['privacy_spent']}")
    show_text(f"Release folder       {folder}", style="bold")


def show_variants(values: Mapping[str, Any]) -> None:
    """One line for each variant of a record."""
    title = f"{values['name']}, version {values['version']}, on {values['evaluation']}"
    show_table([_line(variant) for variant in values["variants"]], title=title)
    for name, reason in values["not_made"].items():
        note(f"{name} was left out: {reason}")


def _line(variant: Mapping[str, Any]) -> dict[str, str]:
    worst = variant["worst_slice"]
    return {
        "variant": f"{variant['target']} {variant['name']}",
        "KB": f"{variant['size_bytes'] / 1000:.1f}",
        "KB gzip": f"{variant['gzip_bytes'] / 1000:.1f}",
        **_score(variant["scores"]),
        "drop": _drop(variant),
        "worst slice": "" if worst is None else _slice(worst),
        "difference": f"{variant['max_output_difference']:.1e}",
        "1 row p50/p99 us": _microseconds(variant["latency_1"]),
        "32 rows p50/p99 us": _microseconds(variant["latency_32"]),
        "MB": f"{(variant['peak_memory_bytes'] or 0) / 1e6:.0f}",
        "": variant["refusal"] or ("recommended" if variant["recommended"] else "ok"),
    }


def _score(scores: Mapping[str, float]) -> dict[str, str]:
    name = next(iter(scores), "accuracy")
    if name not in scores:
        return {name: ""}
    is_share = name == "accuracy"
    text = f"{100 * scores[name]:.2f} %" if is_share else f"{scores[name]:.4g}"
    return {name.replace("_", " "): text}


def _drop(variant: Mapping[str, Any]) -> str:
    drops, noise = variant["drop_points"], variant.get("drop_noise_points", {})
    if not drops:
        return ""
    worst = max(drops, key=lambda name: float(drops[name]))
    spread = f" ± {noise[worst]:.2f}" if worst in noise else ""
    return f"{float(drops[worst]):.2f}{spread}"


def _slice(worst: Mapping[str, Any]) -> str:
    return (
        f"{worst['drop_points']:.2f} ({worst['kind']} {worst['name']}, "
        f"{worst['num_rows']} rows)"
    )


def _microseconds(latency: Mapping[str, float] | None) -> str:
    if latency is None:
        return ""
    return f"{1e6 * latency['p50_s']:.0f}/{1e6 * latency['p99_s']:.0f}"
