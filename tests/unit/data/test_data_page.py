import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "data.md"


def test_what_the_data_page_shows_is_true(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    text = PAGE.read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)
    assert (tmp_path / "packed_loans" / "header.json").is_file()
    assert names["table"].shape == (10, 10)
    assert "label skew" in capsys.readouterr().out
