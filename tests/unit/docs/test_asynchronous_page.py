import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[3] / "docs/how-to/train-asynchronously.md"


def blocks():
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def test_the_page_trains_in_one_process():
    names: dict = {"__name__": "page"}
    exec(compile(blocks()[0], str(PAGE), "exec"), names)
    assert len(names["result"].reports) == 20
    assert names["scores"]["accuracy"] > 0.5


@pytest.mark.slow
@pytest.mark.network
def test_the_page_trains_on_local_workers(tmp_path):
    """In a process of its own: TensorFlow then belongs to that cluster."""
    calls = "print(len(train_on_local_workers(2, 5).reports), 'updates')"
    script = tmp_path / "page.py"
    script.write_text("\n".join([*blocks(), calls]), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("5 updates\n")
