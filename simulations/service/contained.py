"""One system in namespaces of its own: what it starts ends with it.

Its loopback carries nothing else, so bytes can be counted and ports are free.

``python -m simulations.service.contained SYSTEM JSON`` is the first process there. It
starts the system, watches it, and writes ``result.json`` into the run's folder.
"""

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from fedtrain.core.errors import ConfigError, FedtrainError
from simulations.service.watch import watched

_ROOT = Path(__file__).resolve().parents[2]
# The kernel kills all processes of a namespace with its first one.
_CONTAINED = (
    *("setpriv", "--pdeathsig", "KILL", "unshare", "--user", "--map-root-user"),
    *("--net", "--pid", "--fork", "--mount-proc", "--kill-child=KILL", "--"),
)


def contained(system: str, about: dict[str, Any], *, timeout_s: float) -> Any:
    """Runs ``system`` and gives what was measured.

    Args:
      system: Its folder under ``peers``.
      about: Its ``folder``, its ``python`` and the length of the vector, ``weights``.
      timeout_s: After which it is killed.

    Raises:
      FedtrainError: If it failed; with its last words.
    """
    for tool in ("setpriv", "unshare", "ip", "ss"):
        if shutil.which(tool) is None:
            raise ConfigError(f"{tool} is needed: install util-linux and iproute2.")
    command = [sys.executable, "-m", __spec__.name, system, json.dumps(about)]
    folder = Path(about["folder"])
    with (folder / "watcher.log").open("w") as words:
        process = subprocess.Popen(
            [*_CONTAINED, *command], cwd=_ROOT, stdout=words, stderr=words
        )
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise FedtrainError(
                f"{system} took longer than {timeout_s:g} s.\n{_words(folder)}"
            ) from None
        finally:
            process.kill()
            process.wait()
    if process.returncode:
        raise FedtrainError(f"{system} failed.\n{_words(folder)}")
    return json.loads((folder / "result.json").read_text())


def main() -> None:
    """Runs inside the namespaces."""
    system, about = sys.argv[1], json.loads(sys.argv[2])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    started = importlib.import_module(f"simulations.service.peers.{system}.start")
    folder = Path(about["folder"])
    result = watched(started.start(about), folder)
    (folder / "result.json").write_text(json.dumps(result))


def _words(folder: Path) -> str:
    return "\n".join(
        f"{path.name}: {path.read_text(errors='replace')[-2000:]}"
        for path in sorted(folder.glob("*.log"))
    )


if __name__ == "__main__":
    main()
