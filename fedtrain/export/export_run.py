"""From a finished run to a release: written aside, verified, signed, then renamed."""

import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from fedtrain.core.errors import CheckpointError, ConfigError, PrivacyError
from fedtrain.export import record, signing
from fedtrain.export.calibration import with_raw_calibration
from fedtrain.export.choice import recommended
from fedtrain.export.edge import needs_ranges
from fedtrain.export.lineage import lineage_of
from fedtrain.export.page import write_page
from fedtrain.export.paid_scores import Judged, check_judged, judged
from fedtrain.export.payment import judges_private_rows, payment_of
from fedtrain.export.release_folder import new_release
from fedtrain.export.source import Source, source_of
from fedtrain.export.targets import Written, check_packages, checked_targets, written
from fedtrain.export.verify import Candidate, Verifier
from fedtrain.export.web_page import write_web_page
from fedtrain.project.config import ExportSection
from fedtrain.project.load import LoadedRun, load_run
from fedtrain.project.summary import NO_PRIVACY

Told = Callable[[str], None]
PRIVACY_REPORT = "privacy_report.json"
NOTHING_SPENT = (
    "Nothing: variants are functions of the released weights, and were judged and "
    "calibrated on public or synthetic rows only."
)
VOID = (
    "VOID: ranges of activations were measured on raw private rows, without noise, and "
    "are part of the int8 files. No privacy guarantee stands behind this release."
)


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
      to: Targets, such as ``"edge"``; those of ``[export]`` by default.
      into: Releases are its folders ``1``, ``2`` and so on; by default ``export`` in
        the run's folder.
      told: Hears what is being done.
      **changes: Other keys of ``[export]``, such as ``max_accuracy_drop=1.0``.

    Raises:
      CheckpointError: If the weights are not those of the privacy report.
      RefusedExportError: If a target has no variant within the bounds. Nothing is left.
      PrivacyError: If there are no public rows to judge by, and nothing is paid.
      BudgetExhaustedError: If the ledger cannot pay for what would be asked of private
        rows; none was read.
    """
    loaded = load_run(run)
    settings = _settings(loaded, changes)
    targets = checked_targets(settings.to if to is None else to)
    check_packages(targets)
    _check_privacy(loaded, settings)
    _check_weights(loaded)
    needs_ranges = _needs_ranges(settings, targets)
    if needs_ranges:
        _check_rows_are_here(loaded, settings)
    payment = payment_of(loaded, settings, needs_ranges=needs_ranges)
    told("reading the run and its rows")
    source = source_of(
        loaded,
        public_rows=settings.public_rows,
        payment=payment,
        is_judged_privately=judges_private_rows(loaded, settings),
    )
    check_judged(source, error_bound=settings.error_bound)
    if settings.calibration == "raw_private" and needs_ranges:
        source = with_raw_calibration(source)
    parent = Path(into or loaded.folder.path / "export")
    with new_release(parent) as (aside, version):
        told("writing the variants")
        made = written(source, targets, settings, folder=aside, version=version)
        draft = _draft(source, targets, settings, version)
        release = _verified(draft, source, made, settings, aside=aside, told=told)
        release = _with_costs(release, source)
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

    if settings.calibration == "raw_private" and not settings.accept_raw_calibration:
        raise PrivacyError(
            'export.calibration = "raw_private" puts exact ranges of private rows into '
            "the model, and voids its privacy statement. If that is meant, say so: "
            "--accept-raw-calibration (export.accept_raw_calibration = true). "
            '"schema" and "private_query" keep the statement.'
        )


def _check_weights(loaded: LoadedRun) -> None:
    """The privacy report speaks of the weights that it has the hashes of, no others."""
    hashes = (loaded.privacy_report or {}).get("file_hashes", {})
    for path in (loaded.folder.weights, loaded.folder.compressed_weights):
        expected = hashes.get(path.name)
        if expected and path.is_file() and record.file_sha256(path) != expected:
            raise CheckpointError(
                f"{path} is not the file that {loaded.folder.privacy_report.name} "
                "speaks of, so nothing is promised about it. Put the run's own weights "
                "back, or train again."
            )


def _check_rows_are_here(loaded: LoadedRun, settings: ExportSection) -> None:
    if loaded.is_served and settings.calibration in ("private_query", "raw_private"):
        raise ConfigError(
            f'export.calibration = "{settings.calibration}" asks training rows, but '
            f"those of {loaded.config.name} are with its partners. Use "
            '"schema", or leave int8 out (export.edge_variants).'
        )


def _needs_ranges(settings: ExportSection, targets: Sequence[str]) -> bool:
    variants = settings.edge_variants
    return "edge" in targets and (variants is None or any(map(needs_ranges, variants)))


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
        privacy_spent=NOTHING_SPENT,
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
        max_error_increase=settings.max_error_increase,
    )


def _verified(
    draft: record.Release,
    source: Source,
    made: Written,
    settings: ExportSection,
    *,
    aside: Path,
    told: Told,
) -> record.Release:
    verifier = Verifier(source, draft.bounds, settings.slice_columns)
    measured, not_made = _measured(verifier, made, aside=aside, told=told)
    found = Judged(
        [variant for _, variant in measured],
        verifier.source_scores,
        draft.num_evaluation_rows,
    )
    if source.payment is not None and source.is_judged_privately:
        # Else there is nothing to pay for.
        recommended(found.variants, draft.targets, not_made)
        told("asking private rows, noised and paid for")
        bound = settings.error_bound
        found = judged(
            source, source.payment, measured, draft.bounds, error_bound=bound
        )
    chosen = [
        _without_refused_files(variant, aside)
        for variant in recommended(found.variants, draft.targets, not_made)
    ]
    return draft.model_copy(
        update={
            "source_scores": found.source_scores,
            "num_evaluation_rows": found.num_rows,
            "variants": chosen,
            "not_made": not_made,
        }
    )


def _measured(
    verifier: Verifier, made: Written, *, aside: Path, told: Told
) -> tuple[list[tuple[Candidate, record.Variant]], dict[str, str]]:
    """Candidates with their figures; beside them why others have none."""
    measured, not_made = [], dict(made.not_made)
    for candidate in made.candidates:
        told(f"measuring {candidate.target} {candidate.name} in its own runtime")
        try:
            measured.append((candidate, verifier.measured(candidate, folder=aside)))
        except ConfigError as error:
            not_made[f"{candidate.target}/{candidate.name}"] = str(error)
            _remove(candidate.target, candidate.path)
    return measured, not_made


def _with_costs(release: record.Release, source: Source) -> record.Release:
    """``release`` with what was asked of private rows, in figures and in words."""
    if release.release_status == "raw_calibration":
        return release.model_copy(
            update={
                "privacy_statement": f"{VOID} (Before: {release.privacy_statement})",
                "privacy_spent": VOID,
                "charges": source.payment.charged if source.payment else [],
            }
        )
    if source.payment is None or not source.payment.charged:
        return release
    charged = source.payment.charged
    words = "; ".join(charge.in_words() for charge in charged)
    spent = (
        f"{words}. Training and all that was charged to this ledger come to epsilon = "
        f"{charged[-1].epsilon_in_all:.3g}, of the same meaning (accountant: "
        f"{charged[-1].accountant_in_all})."
    )
    return release.model_copy(update={"privacy_spent": spent, "charges": charged})


def _without_refused_files(variant: record.Variant, aside: Path) -> record.Variant:
    if variant.refusal is None or variant.path is None:
        return variant
    _remove(variant.target, aside / variant.path)
    return variant.model_copy(update={"path": None})


def _remove(target: str, path: Path) -> None:
    if target == "server":  # with the configuration that would serve it
        shutil.rmtree(path.parents[1])
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


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
