"""From a finished run to a release: written aside, verified, signed, then renamed."""

import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from fedtrain.core.errors import ConfigError
from fedtrain.export import record, signing
from fedtrain.export.choice import recommended
from fedtrain.export.lineage import lineage_of
from fedtrain.export.page import write_page
from fedtrain.export.release_folder import new_release
from fedtrain.export.source import Source, source_of
from fedtrain.export.targets import Written, check_packages, checked_targets, written
from fedtrain.export.verify import Verifier
from fedtrain.export.web_page import write_web_page
from fedtrain.project.config import ExportSection
from fedtrain.project.load import LoadedRun, load_run
from fedtrain.project.summary import NO_PRIVACY

Told = Callable[[str], None]
PRIVACY_REPORT = "privacy_report.json"


class Released(NamedTuple):
    """A release and where it is.

    Attributes:
      record: Its record.
      folder: Holds everything, and may be copied anywhere.
    """

    record: record.Release
    folder: Path


def export_run(
    run: str | Path,
    *,
    to: Sequence[str] | None = None,
    into: str | Path | None = None,
    told: Told = lambda text: None,
    **changes: Any,
) -> Released:
    """Releases the model of a finished run, in every form that keeps the bounds.

    Args:
      run: Its folder, or ``"latest"``.
      to: Targets, of ``"server"``, ``"edge"`` and ``"web"``; those of ``[export]`` by default.
      into: Releases are its folders ``1``, ``2`` and so on; by default ``export`` in
        the run's folder.
      told: Hears what is being done.
      **changes: Other keys of ``[export]``, such as ``max_accuracy_drop=1.0``.

    Raises:
      RefusedExportError: If a target has no variant within the bounds. Nothing is left.
      PrivacyError: If there are no public rows to judge by.
    """
    loaded = load_run(run)
    settings = _settings(loaded, changes)
    targets = checked_targets(settings.to if to is None else to)
    check_packages(targets)
    _check_privacy(loaded, settings)
    told("reading the run and its public rows")
    source = source_of(loaded, public_rows=settings.public_rows)
    parent = Path(into or loaded.folder.path / "export")
    with new_release(parent) as (aside, version):
        told("writing the variants")
        made = written(source, targets, settings, folder=aside, version=version)
        draft = _draft(source, targets, settings, version)
        release = _verified(draft, source, made, aside, told)
        _copy_privacy_report(loaded, aside)
        write_page(release, aside)
        if "web" in targets:
            write_web_page(source, release, aside / "web")
        release = _signed(release, aside)
        record.write_record(release, aside)
    return Released(release, parent / str(version))


def _settings(loaded: LoadedRun, changes: dict[str, Any]) -> ExportSection:
    given = loaded.config.export.model_dump()
    unknown = sorted(set(changes) - set(given))
    if unknown:
        raise ConfigError(
            f"[export] has no key {unknown[0]!r}; it has {', '.join(given)}."
        )
    chosen = {key: value for key, value in changes.items() if value is not None}
    return ExportSection.model_validate({**given, **chosen})


def _check_privacy(loaded: LoadedRun, settings: ExportSection) -> None:
    if loaded.privacy_report is None and not settings.accept_no_privacy:
        raise ConfigError(
            f"{loaded.folder.path} has no privacy report: it was trained without "
            "[privacy], or has not finished. If its model may be released with no "
            "guarantee, say so: --accept-no-privacy (export.accept_no_privacy = true)."
        )


def _draft(
    source: Source, targets: Sequence[str], settings: ExportSection, version: int
) -> record.Release:
    """The record without what is only known once the variants are measured."""
    statement = source.run.privacy_statement or NO_PRIVACY
    return record.Release(
        name=source.name,
        version=version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        release_status=source.status,
        privacy_statement=statement,
        privacy_spent="Nothing: variants are functions of the released weights, and "
        "were judged and calibrated on public or synthetic rows only.",
        evaluation=source.evaluation_source,
        num_evaluation_rows=source.evaluation.num_examples,
        source_scores={},
        bounds=_bounds(settings),
        targets=list(targets),
        variants=[],
        not_made={},
        lineage=lineage_of(source),
        files={},
        public_key="",
    )


def _bounds(settings: ExportSection) -> record.Bounds:
    return record.Bounds(
        max_accuracy_drop=settings.max_accuracy_drop,
        max_slice_drop=settings.max_slice_drop,
        min_slice_rows=settings.min_slice_rows,
    )


def _verified(
    draft: record.Release, source: Source, made: Written, aside: Path, told: Told
) -> record.Release:
    verifier = Verifier(source, draft.bounds)
    variants = []
    for candidate in made.candidates:
        told(f"measuring {candidate.target} {candidate.name} in its own runtime")
        variants.append(verifier.measured(candidate, folder=aside))
    chosen = [
        _without_refused_files(variant, aside)
        for variant in recommended(variants, draft.targets)
    ]
    return draft.model_copy(
        update={
            "source_scores": verifier.source_scores,
            "variants": chosen,
            "not_made": made.not_made,
        }
    )


def _without_refused_files(variant: record.Variant, aside: Path) -> record.Variant:
    if variant.refusal is None or variant.path is None:
        return variant
    path = aside / variant.path
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    return variant.model_copy(update={"path": None})


def _copy_privacy_report(loaded: LoadedRun, aside: Path) -> None:
    if loaded.folder.privacy_report.is_file():
        shutil.copyfile(loaded.folder.privacy_report, aside / PRIVACY_REPORT)


def _signed(release: record.Release, aside: Path) -> record.Release:
    key = signing.signing_key()
    public = {
        "files": record.file_hashes(aside),
        "public_key": signing.public_text(key),
    }
    unsigned = release.model_copy(update=public)
    signature = signing.signature(key, unsigned.signed_bytes())
    return unsigned.model_copy(update={"signature": signature})
