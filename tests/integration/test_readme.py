"""What the README shows is run as it stands."""

import re
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"


def python_block() -> str:
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[0]


def test_the_example_trains_and_says_what_was_protected(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(python_block(), str(README), "exec"), names)
    score, statement = capsys.readouterr().out.split(" ", 1)
    assert float(score) > 0.9
    assert "epsilon = 8 at delta = 0.0001" in statement
    assert "unit: one row" in statement
    (folder,) = (tmp_path / "runs").iterdir()
    assert (folder / "report.html").stat().st_size > 10_000


def test_the_example_is_at_most_twenty_lines_of_code():
    lines = [line for line in python_block().splitlines() if line.strip()]
    assert len(lines) <= 20, len(lines)


def test_every_link_leads_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README.read_text())
    assert links
    missing = [link for link in links if not (README.parent / link).exists()]
    assert missing == []
