import os

import numpy as np
import pytest

from clients.answers import Answers
from clients.work import RoundTask
from fedtrain.wire.arrays import ArraySpec

SPECS = [ArraySpec((3,), "float32")]
ARRAYS = [np.arange(3, dtype=np.float32)]


@pytest.fixture
def answers(tmp_path):
    return Answers(tmp_path / "answers")


def task_of(number, run="run.1"):
    return RoundTask(run, number, 0, "train", "aa", {})


def saved(answers, number, kept, run="run.1"):
    return answers.save(task_of(number, run), SPECS, ARRAYS, {}, kept)


def test_what_is_kept_lies_with_the_answer_and_does_not_leave(answers):
    saved(answers, 0, b"secret")
    found = answers.load(task_of(0))
    assert b"".join(found.parts()) == ARRAYS[0].tobytes()
    assert found.kept() == answers.kept(task_of(1)) == b"secret"
    assert answers.kept(task_of(1, run="run.2")) == b""


def test_the_newest_counts_whatever_the_clock_says(answers):
    for number in range(6):
        answer = saved(answers, number, b"%d" % number)
        os.utime(answer.path, (1000 - number, 1000 - number))
    saved(answers, 0, b"other", run="run")
    assert answers.kept(task_of(6)) == b"5"
    numbers = [n for n in range(6) if answers.load(task_of(n)) is not None]
    assert numbers == [3, 4, 5]


def test_a_further_attempt_starts_from_the_round_before(answers):
    saved(answers, 0, b"after round 0")
    for attempt in range(6):  # more than are kept
        task = task_of(1)._replace(attempt=attempt)
        assert answers.kept(task) == b"after round 0"
        answers.save(task, SPECS, ARRAYS, {}, b"%d" % attempt)
    scores = task_of(1)._replace(kind="evaluate")
    answers.save(scores, SPECS, ARRAYS, {}, b"after round 0")
    assert answers.kept(task_of(2)) == b"5"
    assert answers.kept(task_of(0)) == b""


def test_what_the_disk_has_damaged_is_not_used(answers):
    answer = saved(answers, 0, b"secret")
    content = answer.path.read_bytes()
    answer.path.write_bytes(content[:-1] + b"?")
    assert answers.kept(task_of(1)) == b""
    assert answers.load(task_of(0)) is not None
    answer.path.write_bytes(b"[]" + content)
    assert answers.kept(task_of(1)) == b""
    assert answers.load(task_of(0)) is None
