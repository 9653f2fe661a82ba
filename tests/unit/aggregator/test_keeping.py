import json
import shutil

import numpy as np
import pytest

from aggregator.audit import audit
from aggregator.backup import backup, restore
from aggregator.cli import main
from aggregator.home import Federation, federation_in, found
from aggregator.journal import Journal
from aggregator.run_book import RunBook
from aggregator.standing import standing
from aggregator.stopping import stop_run
from fedtrain.core.errors import ConfigError, JournalError, LedgerError
from fedtrain.project.run_folder import RunFolder
from tests.unit.aggregator.kept_federation import RUN, kept, spend


@pytest.fixture
def home(tmp_path) -> Federation:
    return kept(tmp_path)


def ledger_of(home):
    return home.path.parent / "state" / "ledgers" / "rows.jsonl"


def restored(saved, to, *, only_journal=False, ledger_from_backup=False):
    return restore(
        saved, to, only_journal=only_journal, ledger_from_backup=ledger_from_backup
    )


def damaged(home):
    """The names of what an audit finds damaged."""
    return [check.what for check in audit(home) if not check.ok]


def run_cli(capsys, *arguments):
    """The exit code, and the JSON that was printed."""
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--format", "json"])
    return stop.value.code, json.loads(capsys.readouterr().out)


def test_backup_brings_all_back_and_asks_an_open_round_again(home, tmp_path):
    before = standing(home)
    backup(home, tmp_path / "saved")
    shutil.rmtree(home.path)
    done = restored(tmp_path / "saved", home.path)
    assert done["aborted_rounds"] == 1
    after = standing(federation_in(home.path))
    assert [(r["round_number"], r["stage"]) for r in before["rounds"]] == [
        (0, "committed"),
        (1, "collecting"),
    ]
    assert [(r["round_number"], r["stage"]) for r in after["rounds"]] == [
        (0, "committed"),
        (1, "aborted"),
    ]
    assert damaged(home) == []
    assert (home.path / "authority" / "authority.pem").stat().st_mode & 0o777 == 0o600
    assert (home.path / "authority").stat().st_mode & 0o777 == 0o700
    assert home.authority().partners()[0].client_id == "bank-a"


def test_a_regions_folder_comes_back_whole_and_elsewhere(home, tmp_path):
    own = home._replace(project=home.path / "federation.toml", region="region-00")
    shutil.copy2(home.project, own.project)
    found(own)
    backup(own, tmp_path / "saved")
    shutil.rmtree(home.path)
    restored(tmp_path / "saved", tmp_path / "elsewhere")
    again = federation_in(tmp_path / "elsewhere")
    assert (again.region, again.service().rows_per_client) == ("region-00", 10)
    assert [check.what for check in audit(again) if check.ok] == [
        "journal",
        "partners' logs",
    ]


def test_restore_overwrites_nothing(home, tmp_path):
    saved = tmp_path / "saved"
    backup(home, saved)
    with pytest.raises(ConfigError, match="nothing is overwritten"):
        restored(saved, home.path)
    with pytest.raises(ConfigError, match="needs a new name"):
        backup(home, saved)


def test_only_the_journal_may_be_put_into_a_home_that_is_there(home, tmp_path):
    saved = tmp_path / "saved"
    backup(home, saved)
    path = home.journal / "journal.sqlite"
    path.write_bytes(path.read_bytes()[:5000])
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    assert damaged(home) == ["journal"]
    restored(saved, home.path, only_journal=True)
    assert damaged(home) == []
    assert list(home.journal.glob("*.until-*"))


def test_ledger_is_never_rolled_back(home, tmp_path):
    saved, ledger = tmp_path / "saved", ledger_of(home)
    backup(home, saved)
    old = ledger.read_bytes()
    spend(ledger, 1)
    spent = ledger.read_bytes()
    shutil.rmtree(home.path)
    done = restored(saved, home.path)
    assert "1 entries since the backup" in done["ledger"]
    assert ledger.read_bytes() == spent
    shutil.rmtree(home.path)
    ledger.write_bytes(old[: old.rindex(b"{")])
    with pytest.raises(LedgerError, match="shortened"):
        restored(saved, home.path)
    assert not home.path.exists()


def test_a_ledger_that_is_gone_needs_an_explicit_word(home, tmp_path):
    saved, ledger = tmp_path / "saved", ledger_of(home)
    backup(home, saved)
    before = ledger.read_bytes()
    shutil.rmtree(home.path)
    ledger.unlink()
    with pytest.raises(LedgerError, match="never rolled back"):
        restored(saved, home.path)
    done = restored(saved, home.path, ledger_from_backup=True)
    assert "is missing" in done["ledger"]
    assert ledger.read_bytes() == before


def test_a_changed_backup_is_refused_before_anything_is_written(home, tmp_path):
    saved = tmp_path / "saved"
    backup(home, saved)
    shutil.rmtree(home.path)
    plan = saved / "home" / "plan.json"
    plan.write_bytes(plan.read_bytes() + b" ")
    with pytest.raises(ConfigError, match=r"plan\.json"):
        restored(saved, home.path)
    assert not home.path.exists()


def test_an_attempt_that_is_given_up_is_another_next_time(home, capsys):
    where = ("--home", str(home.path), "--yes")
    assert run_cli(capsys, "runs", "again", *where) == (0, {"given_up": 1})
    assert run_cli(capsys, "runs", "again", *where) == (0, {"given_up": 0})
    assert standing(home)["rounds"][1]["stage"] == "aborted"
    journal = Journal(home.journal)
    try:
        assert RunBook(journal, RUN).next_attempt("train", 1) == 1
        code, said = run_cli(capsys, "runs", "again", *where)
    finally:
        journal.close()
    assert code == JournalError.exit_code
    assert "another aggregator" in said["error"]["message"]


def test_audit_compares_weights_with_the_journal(tmp_path):
    from fedtrain.project.crossing import nest_sha256  # noqa: PLC0415
    from fedtrain.rounds.checkpoint import Checkpoint, CheckpointStore  # noqa: PLC0415
    from tests.unit.aggregator.kept_federation import write_journal  # noqa: PLC0415

    home = kept(tmp_path)
    state = (np.arange(3, dtype=np.float32), np.int32(1))
    store = CheckpointStore(RunFolder(home.runs / RUN).checkpoints)
    path = store.save(Checkpoint(1, state, {}, {"length": 1, "hash": _last(home)}))
    assert damaged(home) == [f"checkpoint {path.name}"]  # the journal names others
    shutil.rmtree(home.journal)
    write_journal(home, nest_sha256(state))
    assert damaged(home) == []
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert damaged(home) == [f"checkpoint {path.name}"]


def _last(home):
    return json.loads(ledger_of(home).read_text().splitlines()[-1])["hash"]


def test_audit_names_what_is_damaged_and_looks_at_the_rest(home, capsys):
    run = RunFolder(home.runs / RUN)
    run.config.write_text("other settings")
    text = ledger_of(home).read_text()
    ledger_of(home).write_text(text.replace("bank-a", "bank-x"))
    assert damaged(home) == ["run folder", "privacy ledger"]
    code, checks = run_cli(capsys, "audit", "verify", "--home", str(home.path))
    assert code == ConfigError.exit_code
    assert checks[0]["ok"]


def test_audit_notices_a_journal_that_lost_its_end(home):
    from aggregator.event_table import EventTable  # noqa: PLC0415
    from aggregator.journal import default_url  # noqa: PLC0415

    table = EventTable(default_url(home.journal))
    table.replace(list(table.rows())[:-1])
    table.close()
    assert damaged(home) == ["journal"]


def test_a_run_that_is_not_served_is_stopped_for_good(home):
    text = stop_run(home, "enough", is_final=True)
    assert "not resumable" in text
    assert standing(home)["status"] == "stopped"
    info = json.loads((home.runs / RUN / "run.json").read_text())
    assert info["status"] == "stopped"
    with pytest.raises(ConfigError, match="ended already"):
        stop_run(home, "again", is_final=True)


def test_a_pause_of_what_is_not_served_changes_nothing(home):
    assert "resumable" in stop_run(home, "", is_final=False)
    assert standing(home)["status"] == "running"


def test_verbs_print_json_and_exit_codes(home, tmp_path, capsys):
    where = ("--home", str(home.path))
    code, listed = run_cli(capsys, "partners", "list", *where)
    assert (code, listed[0]["last seen"]) == (0, "never")
    assert run_cli(capsys, "runs", "list", *where)[1][0]["run_id"] == RUN
    assert run_cli(capsys, "runs", "show", *where)[1]["status"] == "running"
    assert run_cli(capsys, "plan", *where)[1]["sha256"] == home.plan().sha256
    saved = str(tmp_path / "saved")
    assert run_cli(capsys, "backup", saved, *where)[0] == 0
    assert run_cli(capsys, "restore", saved, *where)[0] == ConfigError.exit_code
    assert run_cli(capsys, "repair", *where)[1]["dropped"] == 0
    assert run_cli(capsys, "runs", "show", "../..", *where)[0] == 2
    nowhere = ("--home", str(tmp_path / "none"))
    assert run_cli(capsys, "runs", "list", *nowhere)[0] == ConfigError.exit_code
    (home.journal / "journal.head").write_bytes(b"?" * 1024)
    (home.journal / "journal.sqlite").write_bytes(b"?" * 9000)
    assert run_cli(capsys, "repair", *where)[0] == JournalError.exit_code


def test_page_certificates_are_private_files(home, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    where = ("--home", str(home.path))
    _, made = run_cli(capsys, "page", "admit", "alice", *where)
    for name in (made["pem"], made["p12"]):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    pem = (tmp_path / made["pem"]).read_text()
    certificate = pem[pem.index("-----BEGIN CERTIFICATE") :]
    assert home.authority().operators.checked(certificate) == "alice"
    assert run_cli(capsys, "page", "revoke", "alice", *where)[0] == 0
    assert run_cli(capsys, "page", "revoke", "alice", *where)[0] == 11
