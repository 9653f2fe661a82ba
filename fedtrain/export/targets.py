"""What can be exported to, and the variants of each target."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from fedtrain.core.errors import ConfigError
from fedtrain.export.bfloat16 import in_bfloat16
from fedtrain.export.calibration import calibration_of
from fedtrain.export.edge import default_variants, needs_ranges, write_edge
from fedtrain.export.needs import needed
from fedtrain.export.node import node_program
from fedtrain.export.onnx_file import check_onnx_packages, write_onnx
from fedtrain.export.server import write_server
from fedtrain.export.source import Source
from fedtrain.export.tfjs_files import check_tfjs
from fedtrain.export.verify import Candidate
from fedtrain.export.web import write_web
from fedtrain.project.config import ExportSection

TARGETS = ("server", "edge", "web", "onnx")


class Written(NamedTuple):
    """What was written for the targets.

    Attributes:
      candidates: To be measured.
      not_made: Why a variant could not be made, by ``target/variant``.
    """

    candidates: list[Candidate]
    not_made: dict[str, str]


def checked_targets(targets: Sequence[str]) -> tuple[str, ...]:
    """``targets`` without repetitions.

    Raises:
      ConfigError: If there is none, or one that is not known.
    """
    unknown = [target for target in targets if target not in TARGETS]
    if unknown or not targets:
        raise ConfigError(
            f"to = {', '.join(unknown) or 'nothing'} cannot be exported to; targets "
            f"are {', '.join(TARGETS)}."
        )
    return tuple(dict.fromkeys(targets))


def check_packages(targets: Sequence[str]) -> None:
    """Raises ConfigError now, not after minutes, where a package is missing."""
    needed("cryptography", reason="Signing a release")
    if "server" in targets:
        needed("tensorflow_serving.apis", reason="The server target")
    if "edge" in targets:
        needed("ai_edge_litert.interpreter", reason="The edge target")
    if "onnx" in targets:
        check_onnx_packages()
    if "web" in targets:
        node_program()
        check_tfjs()


def written(
    source: Source,
    targets: Sequence[str],
    settings: ExportSection,
    *,
    folder: Path,
    version: int,
) -> Written:
    """Writes every variant of ``targets`` below ``folder``."""
    found = Written([], {})
    for target in targets:
        _WRITERS[target](source, settings, folder / target, version, found)
    return found


def _server(
    source: Source, settings: ExportSection, folder: Path, version: int, found: Written
) -> None:
    for variant in dict.fromkeys(settings.server_variants):
        try:
            served = in_bfloat16(source) if variant == "bfloat16" else source
        except ConfigError as error:
            if len(settings.server_variants) == 1:
                raise
            found.not_made[f"server/{variant}"] = str(error)
            continue
        own = folder if variant == "float32" else folder.with_name(f"server-{variant}")
        saved = write_server(served, own, version=version)
        found.candidates.append(
            Candidate(target="server", name=variant, runtime="saved_model", path=saved)
        )


def _edge(
    source: Source, settings: ExportSection, folder: Path, version: int, found: Written
) -> None:
    del version
    folder.mkdir(parents=True)
    variants = settings.edge_variants or default_variants(source)
    measured = any(needs_ranges(variant) for variant in variants)
    calibration = calibration_of(source, settings.calibration) if measured else None
    problem: ConfigError | None = None
    for variant in variants:
        path = folder / f"{source.name}-{variant}.tflite"
        try:
            write_edge(source, path, variant=variant, calibration=calibration)
        except ConfigError as error:
            problem = problem or error  # of those after it, it may be the cause
            found.not_made[f"edge/{variant}"] = str(error)
            continue
        used = calibration.source if calibration and needs_ranges(variant) else None
        found.candidates.append(
            Candidate(
                target="edge",
                name=variant,
                runtime="tflite",
                path=path,
                calibration=used,
            )
        )
    if problem is not None and not any(c.target == "edge" for c in found.candidates):
        raise problem


def _web(
    source: Source, settings: ExportSection, folder: Path, version: int, found: Written
) -> None:
    del version
    paths = write_web(source, folder, variants=settings.web_variants)
    found.candidates.extend(
        Candidate(target="web", name=variant, runtime="tfjs", path=path)
        for variant, path in paths.items()
    )


def _onnx(
    source: Source, settings: ExportSection, folder: Path, version: int, found: Written
) -> None:
    del settings, version
    folder.mkdir(parents=True)
    path = folder / f"{source.name}-float32.onnx"
    write_onnx(source, path)
    found.candidates.append(
        Candidate(target="onnx", name="float32", runtime="onnx", path=path)
    )


_WRITERS: dict[str, Callable[[Source, ExportSection, Path, int, Written], None]] = {
    "server": _server,
    "edge": _edge,
    "web": _web,
    "onnx": _onnx,
}
