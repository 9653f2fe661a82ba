"""One folder that holds all that a federation needs to go on elsewhere.

The privacy ledger is copied for people to look at, and is never written back over one
that is there: what was spent after the backup stays spent. A backup holds the
authority's key; keep it as you keep that.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aggregator import journal_repair
from aggregator.home import Federation, current_run, federation_in
from aggregator.journal import Journal, default_url, stored_events
from aggregator.run_book import RunBook
from fedtrain.core.errors import ConfigError, JournalError, LedgerError
from fedtrain.core.files import sync_folder, write_atomically
from fedtrain.privacy.ledger import Ledger
from fedtrain.project.run_folder import RunFolder

_MANIFEST, _JOURNAL, _LEDGER = "manifest.json", "journal.jsonl", "ledger.jsonl"
_HOME, _PROJECT = "home", "project"
_FILES = (
    "federation.json",
    "federation.toml",  # of a region, whose folder has it
    "plan.json",
    "run.json",
    "seen.json",
    "sequences.log",
)
_FOLDERS = ("authority", "runs")
_TRIES = 5
_SETTLED = frozenset({"committed", "aborted"})


def backup(federation: Federation, to: Path) -> dict[str, Any]:
    """Copies a federation to the new folder ``to``; serving may go on meanwhile.

    The runs are copied before the journal, so that the journal knows of every
    checkpoint in them. Contributions of an open round are not: their partners are
    asked again.

    Raises:
      ConfigError: If ``to`` exists, or cannot be written.
      JournalError: If the journal is damaged.
    """
    if to.exists():
        raise ConfigError(f"{to} exists already; a backup needs a new name.")
    beside = to.with_name(f".{to.name}.{os.getpid()}.tmp")
    try:
        beside.mkdir(mode=0o700, parents=True)
        _copy_home(federation.path, beside / _HOME)
        _copy_project(federation, beside / _PROJECT)
        head = _copy_journal(federation, beside / _JOURNAL)
        ledger = _copy_ledger(federation, beside / _LEDGER)
        manifest = {
            "format": 1,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "run_id": current_run(federation),
            "journal": {"events": head[0], "hash": head[1]},
            "ledger": ledger,
            "files": dict(_hashed(beside)),
        }
        write_atomically(beside / _MANIFEST, json.dumps(manifest, indent=1) + "\n")
        beside.rename(to)
        sync_folder(to.parent)
    except OSError as error:
        raise ConfigError(f"No backup can be written to {to}: {error}.") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return manifest


def restore(
    saved: Path, home: Path, *, only_journal: bool, ledger_from_backup: bool
) -> dict[str, Any]:
    """Puts a backup in place; the ledger of privacy is never put back over a newer one.

    Args:
      saved: From ``backup``.
      home: The operator's folder: new, unless ``only_journal``.
      only_journal: Puts the journal alone into a home that is there; the damaged one is
        kept aside.
      ledger_from_backup: Whether, where no ledger is left at all, the backup's is used.

    Raises:
      ConfigError: If something would be overwritten, or ``saved`` is no whole backup.
      LedgerError: If the ledger is missing, or shorter than it was at the backup.
    """
    manifest = checked_backup(saved)
    text = _check_ledger(manifest, saved, is_accepted=ledger_from_backup)
    if not only_journal:
        _restore_home(saved, home)
    federation = federation_in(home)
    if not federation.project.is_file():
        raise _without_project(saved, federation)
    url = federation.service().database
    if not only_journal:
        _refuse_events(federation, url)
    done = {"home": str(home), "made": manifest["made"], "ledger": text}
    if not (saved / _JOURNAL).exists():
        return {**done, "events": 0, "aborted_rounds": 0}
    journal_repair.restore(federation.journal, saved / _JOURNAL, url)
    why = "restored from a backup, which holds no contributions"
    events, aborted = _abort_open_rounds(federation, url, why)
    return {**done, "events": events, "aborted_rounds": aborted}


def give_up_attempts(federation: Federation) -> int:
    """Gives up the open attempt at a round: the next `serve` asks all anew.

    A partner does not compute an answer twice that may have been seen. Where it has
    kept none (it keeps its newest four), only another attempt helps, with other noise.

    Returns:
      How many were open: one or none.

    Raises:
      JournalError: If an aggregator is running.
    """
    url = federation.service().database
    return _abort_open_rounds(federation, url, "given up by the operator")[1]


def checked_backup(saved: Path) -> dict[str, Any]:
    """The manifest of a backup whose files are all as they were written.

    Raises:
      ConfigError: If it is no backup, or a file is missing or was changed.
    """
    try:
        manifest: dict[str, Any] = json.loads((saved / _MANIFEST).read_text("utf-8"))
        noted = dict(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{saved} is not a backup: it has no {_MANIFEST}.") from error
    found = dict(_hashed(saved))
    wrong = sorted(
        name for name in {*noted, *found} if noted.get(name) != found.get(name)
    )
    if wrong:
        raise ConfigError(
            f"{saved} is not as it was written: {', '.join(wrong[:5])} "
            f"({len(wrong)} of its files). Take another backup."
        )
    return manifest


def _copy_home(home: Path, to: Path) -> None:
    to.mkdir(mode=0o700)
    for name in _FILES:
        if (home / name).exists():
            shutil.copy2(home / name, to / name)
    for name in _FOLDERS:
        if (home / name).is_dir():
            _copy_folder(home / name, to / name)


def _copy_folder(source: Path, to: Path) -> None:
    """Copies what stays; if a checkpoint is replaced meanwhile, it looks again."""
    to.mkdir(mode=source.stat().st_mode & 0o777)
    for _ in range(_TRIES):
        gone = False
        for path in sorted(source.iterdir()):
            if _passes_over(path):
                continue
            if path.is_dir():
                if not (to / path.name).exists():
                    _copy_folder(path, to / path.name)
                continue
            try:
                shutil.copy2(path, to / path.name)
            except FileNotFoundError:
                gone = True
        if not gone:
            return


def _passes_over(path: Path) -> bool:
    is_temporary = path.name.startswith(".") or path.suffix in {".lock", ".tmp"}
    return is_temporary or path.is_symlink() or not (path.is_dir() or path.is_file())


def _copy_project(federation: Federation, to: Path) -> None:
    config = federation.config()
    folder = federation.project.parent
    named = (config.data.schema_path, config.data.test_path, config.model.path)
    to.mkdir()
    shutil.copy2(federation.project, to / federation.project.name)
    for name in named:
        path = folder / name if name and "://" not in name else None
        if path is not None and path.is_file():
            shutil.copy2(path, to / path.name)


def _copy_journal(federation: Federation, to: Path) -> tuple[int, str]:
    url = federation.service().database
    if url is None and not _has_journal(federation):
        return 0, ""
    head = journal_repair.backup(federation.journal, to, url)
    return head.sequence, head.hash


def _has_journal(federation: Federation) -> bool:
    return Path(default_url(federation.journal).removeprefix("sqlite:///")).exists()


def _copy_ledger(federation: Federation, to: Path) -> dict[str, Any] | None:
    path = _ledger_path(federation)
    if path is None or not path.exists():
        return None
    head = Ledger(path).head()
    shutil.copy2(path, to)
    in_home = path.is_relative_to(federation.path.resolve())
    return {"path": str(path), "in_home": in_home, **head}


def _ledger_path(federation: Federation) -> Path | None:
    run_id = current_run(federation)
    if run_id is None:
        return None
    folder = RunFolder(federation.runs / run_id)
    path = folder.read_json(folder.info).get("ledger")
    return None if path is None else Path(path)


def _hashed(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != _MANIFEST:
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            yield str(path.relative_to(folder)), sha256


def _check_ledger(
    manifest: Mapping[str, Any], saved: Path, *, is_accepted: bool
) -> str:
    """Never back: the ledger on this machine holds all that the backup knew of."""
    noted = manifest["ledger"]
    if noted is None:
        return "no ledger: nothing had been spent"
    if noted["in_home"]:
        return "the run's own, of public rows, is in its folder"
    path = Path(noted["path"])
    if path.exists():
        ledger = Ledger(path)
        ledger.expect(noted)
        since = ledger.head()["length"] - noted["length"]
        return f"{path} stays as it is, with {since} entries since the backup"
    if not is_accepted:
        raise LedgerError(
            f"{path} is not on this machine. The ledger of privacy is never rolled "
            "back: bring the newest one there. Only if it is lost for good, "
            "--ledger-from-backup takes the backup's, which knows nothing of what was "
            f"spent after {manifest['made']}."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (saved / _LEDGER).read_bytes(), mode=0o600)
    return (
        f"{path} is the backup's; what was spent after {manifest['made']} is missing "
        "in it. The partners' own ledgers have it"
    )


def _restore_home(saved: Path, home: Path) -> None:
    if home.exists() and any(home.iterdir()):
        raise ConfigError(
            f"{home} is not empty, and nothing is overwritten. Name a new folder with "
            "--home, or put back the journal alone with --only-journal."
        )
    if home.exists():
        home.rmdir()
    beside = home.with_name(f".{home.name}.{os.getpid()}.tmp")
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(saved / _HOME, beside)
        beside.rename(home)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _abort_open_rounds(
    federation: Federation, url: str | None, why: str
) -> tuple[int, int]:
    """All partners of an open round are asked again: gives events, and open rounds."""
    journal = Journal(federation.journal, url)
    try:
        run_id = current_run(federation)
        if run_id is None:
            return journal.head.sequence, 0
        book = RunBook(journal, run_id)
        open_rounds = [state for state in book.all() if state.stage not in _SETTLED]
        body = {"why": why}
        journal.append([book.draft(state, "aborted", body) for state in open_rounds])
        return journal.head.sequence, len(open_rounds)
    finally:
        journal.close()


def _refuse_events(federation: Federation, url: str | None) -> None:
    try:
        first = next(iter(stored_events(federation.journal, url)), None)
    except JournalError:  # none there: as it should be
        first = None
    if first is not None:
        raise ConfigError(
            "The database of the journal holds events already, and nothing is "
            "overwritten. Give it an empty one, or use --only-journal."
        )


def _without_project(saved: Path, federation: Federation) -> ConfigError:
    return ConfigError(
        f"{federation.project} is not there. Its copy is in {saved / _PROJECT}; put it "
        "back, then restore with --only-journal."
    )
