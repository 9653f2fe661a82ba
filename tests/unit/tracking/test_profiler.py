import pytest
import tensorflow as tf

from fedtrain.core.errors import ConfigError
from fedtrain.rounds.report import RoundReport
from fedtrain.tracking.profiler import profile_rounds


def run(num_rounds, **options):
    with profile_rounds("logs", **options) as on_round:
        for number in range(num_rounds):
            on_round(RoundReport(round_number=number), None)


@pytest.fixture
def calls(monkeypatch):
    calls = []
    profiler = tf.profiler.experimental
    monkeypatch.setattr(profiler, "start", lambda log_dir: calls.append("start"))
    monkeypatch.setattr(profiler, "stop", lambda: calls.append("stop"))
    return calls


@pytest.mark.parametrize(("first", "last"), [(0, 0), (0, 2), (1, 1), (2, 4)])
def test_the_profile_is_started_and_stopped_once(calls, first, last):
    run(6, first=first, last=last)
    assert calls == ["start", "stop"]


def test_a_run_that_ends_early_still_writes_its_profile(calls):
    run(3, first=1, last=10)
    assert calls == ["start", "stop"]


@pytest.mark.parametrize(("first", "last"), [(3, 2), (1, 5)])
def test_rounds_that_will_not_come_are_refused(first, last):
    with pytest.raises(ConfigError, match="starts with round 2"):
        run(0, first=first, last=last, next_round=2)


def test_a_profile_is_written(tmp_path):
    with profile_rounds(tmp_path, first=0, last=0) as on_round:
        tf.linalg.matmul(tf.ones([4, 4]), tf.ones([4, 4]))
        on_round(RoundReport(round_number=0), None)
    assert list(tmp_path.rglob("*.xplane.pb"))
