"""The page on secure aggregation: its tests exist, and its numbers are computed."""

import re
from pathlib import Path

from fedtrain.secagg.parameters import parameters_for

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/concepts/secure-aggregation.md").read_text(encoding="utf-8")
TESTS = ROOT / "tests/privacy/secure_aggregation"


def test_every_listed_attack_is_a_test():
    listed = re.findall(r"\| `(test_\w+)` \|", PAGE)
    sources = [path.read_text(encoding="utf-8") for path in TESTS.glob("test_*.py")]
    defined = set(re.findall(r"^def (test_\w+)", "".join(sources), re.MULTILINE))
    assert len(listed) >= 25
    assert len(listed) == len(set(listed))
    assert set(listed) <= defined


def test_the_table_of_parameters_is_what_is_computed():
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", PAGE, re.M)
    assert len(rows) == 6
    for clients, colluding, threshold, losses, honest in (map(int, r) for r in rows):
        found = parameters_for(clients, num_colluding=colluding)
        assert found.threshold == threshold
        assert found.num_tolerated_losses == losses
        assert found.num_honest_survivors == honest
