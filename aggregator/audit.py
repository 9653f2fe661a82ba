"""Whether all that the operator keeps is what was written: nothing is trusted by name.

The journal's chain and its head, the privacy ledger and how long a checkpoint remembers
it, the run's settings and checkpoints, whose weights the journal names by their hash,
and the files of releases. No TensorFlow is needed.
"""

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from aggregator.audit_heads import check_heads
from aggregator.events import Event, Head
from aggregator.head_file import HeadFile
from aggregator.home import Federation, current_run
from aggregator.journal import head_path, stored_events
from aggregator.saved_checkpoint import read_checkpoint
from fedtrain.core.errors import (
    CheckpointError,
    ConfigError,
    FedtrainError,
    JournalError,
    LedgerError,
    TamperedReleaseError,
)
from fedtrain.privacy.ledger import Ledger
from fedtrain.project.run_folder import RunFolder
from fedtrain.project.secure_session import TOP
from fedtrain.rounds.checkpoint_file import generations, ledger_heads


class Check(NamedTuple):
    """One thing that was looked at.

    Attributes:
      what: Its name.
      ok: Whether it is as it was written.
      text: What was found.
      exit_code: Of the error; 0 where there is none.
    """

    what: str
    ok: bool
    text: str
    exit_code: int


def audit(federation: Federation) -> list[Check]:
    """Looks at everything; what is damaged is said, and the rest is still looked at."""
    events: list[Event] = []
    checks = [_checked("journal", partial(_journal, federation, events))]
    run_id = current_run(federation)
    if run_id is None:
        return checks
    heads = _checked("partners' logs", partial(_heads, federation, events))
    if federation.region != TOP:  # trains nothing and is charged nothing
        return [*checks, heads]
    folder = RunFolder(federation.runs / run_id)
    return [
        *checks,
        _checked("run folder", partial(_settings, folder)),
        *(
            _checked(f"checkpoint {path.name}", partial(_state, path, events))
            for path in reversed(generations(folder.checkpoints))
        ),
        _checked("privacy ledger", partial(_ledger, folder)),
        heads,
        *(
            _checked(f"release {path.parent.name}", partial(_release, path.parent))
            for path in sorted((folder.path / "export").rglob("release.json"))
        ),
    ]


def partner_heads(federation: Federation) -> list[dict[str, Any]]:
    """The newest head of each partner's audit log that came with a contribution.

    ``signed`` is the request in which the partner signed it, in base64.
    """
    heads: dict[str, dict[str, Any]] = {}
    if current_run(federation) is None:
        return []
    database = federation.service().database
    for event in stored_events(federation.journal, database):
        body = event.draft.body
        if event.draft.kind == "accepted" and "audit" in body:
            noted = body["audit"]
            heads[body["client"]] = {
                "run": event.draft.run_id,
                "head": f"{noted['length']}:{noted['hash']}",
                "signed": noted.get("signed", ""),
            }
    return [{"partner": name, **heads[name]} for name in sorted(heads)]


def _checked(what: str, look: Callable[[], str]) -> Check:
    try:
        return Check(what, ok=True, text=look(), exit_code=0)
    except FedtrainError as error:
        return Check(what, ok=False, text=str(error), exit_code=error.exit_code)
    except OSError as error:
        return Check(what, ok=False, text=str(error), exit_code=1)


def _journal(federation: Federation, events: list[Event]) -> str:
    noted = _noted_head(federation.journal)
    head = Head()
    for event in stored_events(federation.journal, federation.service().database):
        events.append(event)
        head = head.after(event)
    hashes = {event.hash for event in events}
    if noted is None or (noted.sequence and noted.hash not in hashes):
        raise JournalError(
            f"The journal ends at event {head.sequence}, but the head kept beside it "
            "is damaged or says otherwise. Stop the aggregator, then run "
            "`fedtrain-aggregator repair`."
        )
    return f"{head.sequence} events, chained; the head is {head.hash[:16]}"


def _noted_head(folder: Path) -> Head | None:
    if not head_path(folder).exists():
        return None
    file = HeadFile(head_path(folder))
    try:
        return file.read()
    finally:
        file.close()


def _settings(folder: RunFolder) -> str:
    noted = folder.read_json(folder.info).get("project_sha256")
    if noted != folder.project_sha256():
        raise ConfigError(
            f"The settings or the model in {folder.path} are not those that the run "
            "began with."
        )
    return f"settings and model as at the start, {noted[:16]}"


def _state(path: Path, events: list[Event]) -> str:
    saved = read_checkpoint(path)
    noted = [
        event.draft.body["state_sha256"]
        for event in events
        if event.draft.kind == "committed"
        and event.draft.round_number == saved.rounds_done - 1
        and event.draft.body["task"] == "train"
    ]
    if noted and saved.state_sha256 not in noted:
        raise CheckpointError(
            f"{path} holds other weights than the journal notes for the end of round "
            f"{saved.rounds_done}."
        )
    known = "the journal names the same weights" if noted else "not in the journal yet"
    return f"intact after {saved.rounds_done} rounds; {known}"


def _ledger(folder: RunFolder) -> str:
    path = folder.read_json(folder.info).get("ledger")
    if path is None:
        return "none: the run has no [privacy]"
    if not Path(path).exists() and generations(folder.checkpoints):
        raise LedgerError(
            f"{path} is not there, though the run has charged it. Put it back from "
            "where it is backed up; a new one would forget what was spent."
        )
    ledger = Ledger(path)
    for head in ledger_heads(folder.checkpoints):
        if head is not None:
            ledger.expect(head)
    return f"{ledger.head()['length']} entries, none missing; {path}"


def _heads(federation: Federation, events: list[Event]) -> str:
    return check_heads(events, federation.authority().partners())


def _release(folder: Path) -> str:
    try:
        files = json.loads((folder / "release.json").read_text("utf-8"))["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise TamperedReleaseError(f"{folder}/release.json cannot be read.") from error
    for name, noted in files.items():
        path = folder / name
        found = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(found).hexdigest() != noted:
            raise TamperedReleaseError(f"{path} is not the file that was released.")
    return (
        f"{len(files)} files as recorded; `fedtrain release verify` checks who signed"
    )
