"""Checking a release anywhere, and comparing two."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fedtrain.core.errors import TamperedReleaseError
from fedtrain.export import signing
from fedtrain.export.record import RECORD, Release, file_hashes, read_record

NO_GUARANTEE, RAW_CALIBRATION = 10, 17
_CODES = {"release": 0, "raw_calibration": RAW_CALIBRATION}


class Verified(NamedTuple):
    """A release whose files are those that were signed.

    Attributes:
      record: Its record.
      signer: Fingerprint of the key.
      is_own: Whether the key is that of this user.
      exit_code: 0 where the privacy statement holds, ``NO_GUARANTEE`` for a simulation
        or a run without privacy, ``RAW_CALIBRATION`` where raw private rows calibrated
        it.
    """

    record: Release
    signer: str
    is_own: bool
    exit_code: int


def verify_release(folder: str | Path, *, signer: str | None = None) -> Verified:
    """Checks the signature and every file of the release in ``folder``.

    Args:
      folder: Of the release, wherever it was copied to.
      signer: Fingerprint of the key that must have signed it. A signature alone only
        shows that nothing changed since *some* key signed.

    Raises:
      TamperedReleaseError: Naming the key or the first file that differs.
      ConfigError: If it has no record that can be read.
    """
    folder = Path(folder)
    release = signed_record(folder, signer=signer)
    _check_files(release, folder)
    found = signing.fingerprint(release.public_key)
    code = _CODES.get(release.release_status, NO_GUARANTEE)
    return Verified(release, found, _is_own(release), code)


def signed_record(folder: Path, *, signer: str | None = None) -> Release:
    """The record in ``folder``, whose signature holds; its files are not looked at.

    Raises:
      TamperedReleaseError: If it was changed after it was signed, or is signed by
        another key than that of the fingerprint ``signer``.
      ConfigError: If it cannot be read.
    """
    release = read_record(folder)
    content, signature = release.signed_bytes(), release.signature or ""
    key = release.public_key
    if not signing.is_signed(content, signature=signature, public_key=key):
        raise TamperedReleaseError(
            f"{folder / RECORD} was changed after it was signed, or was not signed by "
            f"key {signing.fingerprint(key)}."
        )
    found = signing.fingerprint(key)
    if signer is not None and found != signer:
        raise TamperedReleaseError(
            f"{folder / RECORD} is signed by key {found}, not by {signer}."
        )
    return release


def compare_releases(first: str | Path, second: str | Path) -> list[dict[str, Any]]:
    """What differs between two releases: one row for each field, old beside new.

    Figures that vary from run to run (latency, memory) are listed with their values;
    files by name where they were added, removed or changed.
    """
    old, new = (_flat(read_record(Path(path))) for path in (first, second))
    return [
        {"field": field, "first": old.get(field), "second": new.get(field)}
        for field in sorted(set(old) | set(new))
        if old.get(field) != new.get(field)
    ]


def _check_files(release: Release, folder: Path) -> None:
    found = file_hashes(folder)
    for name, expected in release.files.items():
        if found.get(name, "none") == "none":
            raise TamperedReleaseError(f"{folder / name} is missing.")
        if found[name] != expected:
            raise TamperedReleaseError(
                f"{folder / name} was changed: its SHA-256 is {found[name][:16]}..., "
                f"the record says {expected[:16]}...."
            )
    added = sorted(set(found) - set(release.files))
    if added:
        raise TamperedReleaseError(f"{folder / added[0]} is not part of the release.")


def _is_own(release: Release) -> bool:
    if not signing.key_path().is_file():
        return False
    return signing.public_text(signing.signing_key()) == release.public_key


def _flat(release: Release) -> dict[str, Any]:
    values = release.model_dump(mode="json", exclude={"signature", "variants"})
    variants = {
        f"{variant.target}/{variant.name}": variant.model_dump(mode="json")
        for variant in release.variants
    }
    return dict(_leaves("", {**values, "variants": variants}))


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(f"{path}.{key}" if path else str(key), item)
    else:
        yield path, value
