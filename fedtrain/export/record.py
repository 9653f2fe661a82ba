"""``release.json``: what was released, how good it is, and where it comes from.

Checked against its schema when it is written and when it is read. Its signature covers
every other field, and its fields name the SHA-256 of every file.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import pydantic

from fedtrain.core.errors import ConfigError, TamperedReleaseError
from fedtrain.core.files import write_atomically

RECORD = "release.json"
PAGE = "release.html"
# Of projects; it becomes a folder's name, and stands in a server's configuration.
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
Status = Literal["simulation", "no_privacy", "raw_calibration", "release"]


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, ser_json_inf_nan="strings"
    )


class Latency(_Strict):
    """Seconds of one call with one thread: median and 99th percentile."""

    p50_s: float
    p99_s: float


class SliceDrop(_Strict):
    """What a variant loses on some of the rows, in points (hundredths)."""

    kind: str
    name: str
    num_rows: int
    drop_points: float


class Charged(_Strict):
    """One query to private rows that the export made, and what it cost.

    ``sensitivity`` is how far one unit moves the sums (L2); under ``replace_one`` it is
    twice that. ``noise_stddev`` is the noise on each sum, ``epsilon`` the query's own
    at ``delta``, and ``epsilon_in_all`` what the ledger stands at after it.
    """

    name: str
    mechanism: str
    noise_source: str
    sensitivity: float
    noise_multiplier: float
    noise_stddev: float
    unit: str
    rows_per_unit: int
    trust: str
    neighboring_relation: str
    delta: float
    epsilon: float
    epsilon_in_all: float
    accountant: str
    accountant_in_all: str
    amplification: str
    ledger_length: int
    ledger_hash: str

    def in_words(self) -> str:
        """What was asked and spent, in a sentence."""
        return (
            f"{self.name}: epsilon = {self.epsilon:.3g} at delta = {self.delta:g} "
            f"(unit: {self.unit}; {self.neighboring_relation}; trust: {self.trust}; "
            f"accountant: {self.accountant}; amplification: {self.amplification}), "
            f"{self.mechanism}, sensitivity {self.sensitivity:.4g}, noise of standard "
            f"deviation {self.noise_stddev:.4g} on each sum"
        )


class RawCheck(_Strict):
    """The signature that takes raw columns, on synthetic rows of the schema.

    ``max_output_difference`` is to the run's own encoding and model, so that it shows
    any skew between training and serving. ``columns`` names the column of each input.
    """

    columns: dict[str, str]
    max_output_difference: float
    latency_1: Latency
    latency_32: Latency


class Variant(_Strict):
    """One form of the model, measured in its own runtime in a fresh process.

    ``drop_points`` and ``worst_slice`` are losses against the source model on the same
    rows: negative where the variant is better; of errors, per cent that they rise.
    ``drop_noise_points`` is the standard deviation of the noise in a drop, where that
    was noised. ``refusal`` is None where it is within the bounds; files of refused
    variants are not part of the release.
    """

    target: str
    name: str
    runtime: str
    path: str | None
    recommended: bool
    refusal: str | None
    calibration: str | None
    size_bytes: int
    gzip_bytes: int
    scores: dict[str, float]
    drop_points: dict[str, float]
    drop_noise_points: dict[str, float] = {}
    worst_slice: SliceDrop | None
    max_output_difference: float
    agreement: float
    latency_1: Latency
    latency_32: Latency | None
    peak_memory_bytes: int | None
    raw: RawCheck | None = None


class Bounds(_Strict):
    """What a variant may lose, in points; slices with fewer rows are shown only.

    ``max_error_increase`` is in per cent of the trained model's error.
    """

    max_accuracy_drop: float = pydantic.Field(ge=0.0)
    max_slice_drop: float = pydantic.Field(ge=0.0)
    min_slice_rows: int = pydantic.Field(ge=1)
    max_error_increase: float = pydantic.Field(ge=0.0, default=1.0)


class Lineage(_Strict):
    """Where the model comes from, by SHA-256 where it is a file.

    ``data_sha256`` is that of public rows only.
    """

    run_id: str
    project_file_sha256: str
    weights_sha256: str
    data_sha256: str | None
    schema_sha256: str | None
    privacy_report_sha256: str | None
    ledger_hash: str | None
    trained_with: dict[str, str]
    exported_with: dict[str, str]


class Release(_Strict):
    """Everything that a reader needs to judge a release.

    ``privacy_statement`` is the run's own; ``privacy_spent`` says what the export
    added, and ``charges`` every query of it (``num_evaluation_rows`` is noised then).
    ``files`` has every file of the release but this one; ``not_made`` says why a
    variant is missing.
    """

    format_version: Literal[1] = 1
    name: str = pydantic.Field(pattern=NAME)
    version: int = pydantic.Field(ge=1)
    created: str
    release_status: Status
    privacy_statement: str
    privacy_spent: str
    charges: list[Charged] = []
    evaluation: str
    num_evaluation_rows: int
    source_scores: dict[str, float]
    bounds: Bounds
    targets: list[str]
    variants: list[Variant]
    not_made: dict[str, str] = {}
    lineage: Lineage
    files: dict[str, str]
    public_key: str
    signature: str | None = None

    def signed_bytes(self) -> bytes:
        """What the signature covers: every other field, in one canonical form."""
        values = self.model_dump(mode="json", exclude={"signature"})
        return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()


def write_record(release: Release, folder: Path) -> None:
    """Writes ``folder/release.json``."""
    write_atomically(folder / RECORD, release.model_dump_json(indent=2) + "\n")


def read_record(folder: Path) -> Release:
    """The record in ``folder``.

    Raises:
      ConfigError: If there is none, or one of another version's.
      TamperedReleaseError: Naming the first field that no export wrote so.
    """
    path = folder / RECORD
    try:
        content = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{folder} is no release: {path} cannot be read ({error}). Give a folder "
            "that fedtrain export wrote."
        ) from error
    try:
        return Release.model_validate_json(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole"
        problem = ConfigError if field == "format_version" else TamperedReleaseError
        raise problem(f"{path}: {field}: {first['msg']}.") from error


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below ``folder`` but the record.

    What is neither a file nor a folder, such as a link to a folder, is listed without.
    """
    return {
        str(path.relative_to(folder)): file_sha256(path) if path.is_file() else "none"
        for path in sorted(folder.rglob("*"))
        if (path.is_symlink() or not path.is_dir()) and path != folder / RECORD
    }


def json_schema() -> dict[str, Any]:
    """The JSON schema of the record."""
    return Release.model_json_schema()
