import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def reference():
    path = ROOT / "docs" / "reference.py"
    spec = importlib.util.spec_from_file_location("reference", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_public_name_is_documented(reference, tmp_path, capsys):
    assert reference.main(tmp_path) == 0, capsys.readouterr().err
    text = (tmp_path / "fedtrain.rounds.md").read_text()
    assert "### fed_avg" in text
    assert "- `server_optimizer`: By default SGD" in text
    assert "(fedtrain.rounds.md)" in (tmp_path / "index.md").read_text()


def test_asking_for_help_writes_nothing(tmp_path):
    program = [sys.executable, str(ROOT / "docs" / "reference.py")]
    for option, code in (("--help", 0), ("--out", 2)):
        done = subprocess.run(
            [*program, option],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code
        assert "[output_dir]" in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def problems(reference, source):
    return reference.undocumented("module", ast.parse(source))


def test_missing_docstrings_are_named(reference):
    source = '"""Module."""\ndef f(): ...\nclass A:\n "A."\n def g(self): ...\n'
    assert problems(reference, source) == [
        "module.f has no docstring.",
        "module.A.g has no docstring.",
    ]


def test_attributes_must_be_the_fields(reference):
    source = (
        '"""M."""\nclass A:\n  """A.\n\n  Attributes:\n    x: X.\n  """\n  y: int\n'
    )
    assert problems(reference, source) == [
        "module.A describes x, which it has not.",
        "module.A.y is not described.",
    ]


def pages():
    return sorted([*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md")])


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    local = [target for target in targets if not re.match(r"\w+:", target)]
    missing = [target for target in local if not (page.parent / target).exists()]
    assert missing == []
