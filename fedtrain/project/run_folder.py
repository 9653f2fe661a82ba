"""What a run leaves behind, and where: one folder for each run."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock

from fedtrain.core.errors import ConfigError
from fedtrain.core.files import write_atomically

BUDGET_EXHAUSTED, STOPPED = "budget exhausted", "stopped"
# In run.json: the fingerprint of the key that the run's noise is drawn from.
NOISE_KEY = "noise_key"


@dataclass(frozen=True)
class RunFolder:
    """Paths within the folder of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """The project file as it was used: every key, defaults and overrides."""
        return self.path / "federation.toml"

    @property
    def model(self) -> Path:
        """The user's model file, copied."""
        return self.path / "model.py"

    @property
    def given_model(self) -> Path:
        """A Keras model that was given as an object, before training."""
        return self.path / "model.keras"

    @property
    def schema(self) -> Path:
        """What the columns of the training rows hold, where they have a schema."""
        return self.path / "schema.json"

    @property
    def info(self) -> Path:
        """What ran: versions, seed, data, model, status."""
        return self.path / "run.json"

    @property
    def checkpoints(self) -> Path:
        """The newest checkpoints."""
        return self.path / "checkpoints"

    @property
    def weights(self) -> Path:
        """The final weights, an array for each by name."""
        return self.path / "weights.npz"

    @property
    def best_weights(self) -> Path:
        """Those after the round that ``[stop]`` found best."""
        return self.path / "best_weights.npz"

    @property
    def last_weights(self) -> Path:
        """Those after the last round, where ``[stop]`` may have kept others."""
        return self.path / "last_weights.npz"

    @property
    def compressed_weights(self) -> Path:
        """Those that ``[compression]`` left, after fine-tuning; of the same names."""
        return self.path / "compressed_weights.npz"

    @property
    def metrics(self) -> Path:
        """One line of JSON for each round."""
        return self.path / "metrics.jsonl"

    @property
    def privacy_report(self) -> Path:
        """The guarantee, with all its parameters."""
        return self.path / "privacy_report.json"

    @property
    def ledger(self) -> Path:
        """The privacy ledger of a run on public data."""
        return self.path / "ledger.jsonl"

    @property
    def tensorboard(self) -> Path:
        """For ``tensorboard --logdir``."""
        return self.path / "tensorboard"

    @property
    def html_report(self) -> Path:
        """Everything on one page."""
        return self.path / "report.html"

    @property
    def summary(self) -> Path:
        """The closing table."""
        return self.path / "summary.json"

    @property
    def diagnostics(self) -> Path:
        """Exact figures about private rows; nothing here is protected."""
        return self.path / "diagnostics-NOT-PRIVATE"

    def read_json(self, path: Path) -> dict[str, Any]:
        """A JSON file of this run; empty if it is not there (yet)."""
        if not path.is_file():
            return {}
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return content

    def write_json(self, path: Path, content: Mapping[str, Any]) -> None:
        """Writes a JSON file of this run, whole or not at all."""
        write_atomically(path, json.dumps(content, indent=2, default=str) + "\n")

    def project_sha256(self) -> str:
        """SHA-256 of what decides the run besides its data: settings and model."""
        digest = hashlib.sha256()
        compiled = self.given_model.with_suffix(".compile.json")
        models = (self.model, self.given_model, compiled)
        for path in (self.config, *models, self.schema):
            if path.is_file():
                content = path.read_bytes()
                digest.update(f"{path.name} {len(content)}\n".encode() + content)
        return digest.hexdigest()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second process from continuing the same run."""
        lock = filelock.FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise ConfigError(
                f"{self.path} is in use by another process; wait for it, or end it."
            ) from None
        try:
            yield
        finally:
            lock.release()


def new_run_folder(
    runs_dir: Path, name: str, *, config: str, model_file: Path | None
) -> RunFolder:
    """Makes ``runs_dir/<name>-<UTC time>-<8 hex digits>`` and writes the first files.

    The digits are the machine's own randomness, of no seed: the folder's name is the
    run's id in ledgers, and no two runs may ever share one, in whatever ``runs_dir``.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    runs_dir.mkdir(parents=True, exist_ok=True)
    folder = RunFolder(runs_dir / f"{name}-{stamp}-{os.urandom(4).hex()}")
    folder.path.mkdir()
    if model_file is not None:
        _keep_model(folder, model_file)
    write_atomically(folder.config, config)
    return folder


def existing_run(run: str | Path, *, runs_dir: Path = Path("runs")) -> RunFolder:
    """The folder of a run, by path, by name below ``runs_dir``, or ``"latest"``."""
    if str(run) == "latest":
        runs = [path.parent for path in runs_dir.glob("*/federation.toml")]
        if not runs:
            raise ConfigError(f"There is no run in {runs_dir.resolve()}.")
        return RunFolder(max(runs, key=lambda path: (_started(path), path.name)))
    for path in (Path(run), runs_dir / str(run)):
        if (path / "federation.toml").is_file():
            return RunFolder(path)
    raise ConfigError(
        f"{str(run)!r} is not a run: it has no federation.toml. Give the path of a "
        f'folder below {runs_dir}, or "latest".'
    )


def _keep_model(folder: RunFolder, model_file: Path) -> None:
    if model_file.suffix != ".keras":
        shutil.copyfile(model_file, folder.model)
        return
    shutil.copyfile(model_file, folder.given_model)
    beside = model_file.with_suffix(".compile.json")
    if beside.is_file():
        shutil.copyfile(beside, folder.given_model.with_suffix(".compile.json"))


def _started(path: Path) -> str:
    try:
        info = json.loads((path / "run.json").read_text("utf-8"))
    except (OSError, ValueError):
        return ""
    return str(info.get("started", ""))
