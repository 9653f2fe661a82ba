"""Releases of many runs in one folder that a running TensorFlow Serving reads.

``BASE/NAME/VERSION`` is one released SavedModel, with its signed record in
``assets.extra/release.json``. ``BASE/models.config`` says which versions are loaded and
which of them are called stable and canary; a server reads it again every ten seconds.

A server refuses a whole configuration if it moves a label to a version that is not
loaded yet. So publishing and moving a label are two steps: ``publish_release`` adds a
version, ``label_version`` moves a label to one that was added before.

Source: TensorFlow Serving, ``ServerCore::ReloadConfig``.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import filelock

from fedtrain.core import validate
from fedtrain.core.errors import ConfigError, TamperedReleaseError
from fedtrain.core.files import write_atomically
from fedtrain.export.record import RECORD, Release, Variant, file_hashes
from fedtrain.export.release import signed_record, verify_release
from fedtrain.export.release_folder import new_release
from fedtrain.export.serving_files import (
    LABELS,
    MODELS,
    Served,
    models_config,
    read_models,
    surroundings,
)

# TensorFlow Serving leaves this folder of a SavedModel to whoever wrote it.
_EXTRA = "assets.extra"
_BESIDE = f"{_EXTRA}/{RECORD}"
# Loaded even without a label, so that one can be moved to them at once.
_NEWEST = 3


class Published(NamedTuple):
    """A released model where a server finds it.

    Attributes:
      folder: ``BASE/NAME/VERSION``.
      variant: Which of the release's server variants it is.
      record: Of the release.
      served: The model's versions and labels, as the server reads them now.
    """

    folder: Path
    variant: str
    record: Release
    served: Served


def publish_release(
    release: str | Path,
    base: str | Path,
    *,
    variant: str | None = None,
    signer: str | None = None,
) -> Published:
    """Copies a release's SavedModel below ``base`` as the model's next version.

    The first version of a model gets both labels; later ones get one by
    ``label_version``. No version is ever overwritten, and none is seen half-written.

    Args:
      release: A release's folder.
      base: The server's folder, shared by all releases; made if there is none.
      variant: Of the server target; the recommended one by default.
      signer: Fingerprint of the key that must have signed the release.

    Raises:
      TamperedReleaseError: If the release is not what was signed.
      ConfigError: If it has no such variant, or ``base`` cannot be written.
    """
    release, base = Path(release), Path(base)
    record = verify_release(release, signer=signer).record
    chosen = _server_variant(record, variant)
    with _locked(base):
        models = read_models(base / MODELS)
        with new_release(base / record.name) as (aside, version):
            shutil.copytree(release / str(chosen.path), aside, dirs_exist_ok=True)
            shutil.copyfile(release / RECORD, aside / _BESIDE)
            _check_copy(aside, record, chosen)
        served = _with_version(_served(models, record.name), version)
        _write(base, models, served)
    folder = base / record.name / str(version)
    return Published(folder, chosen.name, record, served)


def label_version(
    base: str | Path,
    label: str,
    version: int,
    *,
    name: str | None = None,
    signer: str | None = None,
) -> Served:
    """Moves a label, and with it the callers who ask for it, to another version.

    Args:
      base: The server's folder.
      label: ``"stable"`` or ``"canary"``.
      version: One that the server has loaded.
      name: Of the model; may be left out where there is only one.
      signer: Fingerprint of the key that must have signed what was published.

    Raises:
      TamperedReleaseError: If the version's files are not those that were signed.
      ConfigError: If there is no such model, or the server has not loaded ``version``.
    """
    validate.one_of(LABELS, label=label)
    base = Path(base)
    with _locked(base):
        models = read_models(base / MODELS)
        served = _known(models, name, base)
        _check_served(served, version, base)
        check_published(base / served.name / str(version), signer=signer)
        moved = _with_label(served, label, version)
        _write(base, models, moved)
    return moved


def check_published(folder: Path, *, signer: str | None = None) -> Release:
    """The signed record of ``BASE/NAME/VERSION``, whose files are as it says.

    Raises:
      TamperedReleaseError: Naming the file that differs, the key or the model.
    """
    record = signed_record(folder / _EXTRA, signer=signer)
    if record.name != folder.parent.name:
        raise TamperedReleaseError(
            f"{folder} holds a release of {record.name}, not of {folder.parent.name}."
        )
    found = file_hashes(folder)
    found.pop(_BESIDE, None)
    variants = [v for v in record.variants if v.target == "server" and v.path]
    expected = [_expected(record, variant) for variant in variants]
    if found not in expected:
        wrong = _first_difference(found, expected[0] if expected else {})
        raise TamperedReleaseError(
            f"{folder / wrong} is not what was released as {record.name} "
            f"{record.version}. Publish the release again: it gets the next number."
        )
    return record


@contextmanager
def _locked(base: Path) -> Iterator[None]:
    try:
        base.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(base / ".lock"):
            yield
    except OSError as error:
        raise ConfigError(
            f"{base} cannot be written: {error}. What is served did not change; make "
            "room, or give another --base."
        ) from error


def _server_variant(record: Release, name: str | None) -> Variant:
    kept = [v for v in record.variants if v.target == "server" and v.path]
    for variant in kept:
        if variant.recommended if name is None else variant.name == name:
            return variant
    there = ", ".join(variant.name for variant in kept) or "none"
    raise ConfigError(
        f"{record.name} {record.version} has no server variant {name or ''!r}; it has "
        f"{there}. Export with --to server (export.server_variants)."
    )


def _check_copy(aside: Path, record: Release, variant: Variant) -> None:
    """The disk holds what was signed, not only what was read a moment ago."""
    found = file_hashes(aside)
    found.pop(_BESIDE)
    expected = _expected(record, variant)
    if found != expected:
        wrong = _first_difference(found, expected)
        raise TamperedReleaseError(f"{wrong} changed while it was being copied.")


def _expected(record: Release, variant: Variant) -> dict[str, str]:
    """SHA-256 of a variant's files, by their names below its folder."""
    start = f"{variant.path}/"
    return {
        file.removeprefix(start): sha256
        for file, sha256 in record.files.items()
        if file.startswith(start)
    }


def _first_difference(found: dict[str, str], expected: dict[str, str]) -> str:
    names = sorted(found.keys() | expected.keys())
    return next((n for n in names if found.get(n) != expected.get(n)), "a file")


def _served(models: Sequence[Served], name: str) -> Served:
    return next((model for model in models if model.name == name), Served(name, [], {}))


def _known(models: Sequence[Served], name: str | None, base: Path) -> Served:
    fitting = [model for model in models if name in (None, model.name)]
    if len(fitting) == 1:
        return fitting[0]
    there = ", ".join(model.name for model in models) or "none"
    raise ConfigError(
        f"name is {name!r}, and {base / MODELS} has the models: {there}. Give --name."
    )


def _check_served(served: Served, version: int, base: Path) -> None:
    if version not in served.versions:
        loaded = ", ".join(map(str, sorted(served.versions)))
        raise ConfigError(
            f"{base / MODELS} has no version {version} of {served.name} loaded, only "
            f"{loaded}, and a server refuses a label of a version that it has not "
            "loaded. Publish that release again: it gets the next number."
        )


def _with_version(served: Served, version: int) -> Served:
    """Labels stay where they are: the server has not loaded ``version`` yet."""
    labels = {label: served.labels.get(label, version) for label in LABELS}
    return served._replace(versions=[*served.versions, version], labels=labels)


def _with_label(served: Served, label: str, version: int) -> Served:
    """Keeps what had a label until now, so that the step back needs no loading."""
    labels = {**served.labels, label: version}
    newest = sorted(served.versions)[-_NEWEST:]
    kept = {*newest, *served.labels.values(), *labels.values()}
    return served._replace(versions=sorted(kept), labels=labels)


def _write(base: Path, models: Sequence[Served], changed: Served) -> None:
    """The configuration, and once whatever else a server is started with."""
    others = [model for model in models if model.name != changed.name]
    for file, text in surroundings(changed.name).items():
        if not (base / file).exists():
            write_atomically(base / file, text)
    ordered = sorted([*others, changed], key=lambda model: model.name)
    write_atomically(base / MODELS, models_config(ordered))
