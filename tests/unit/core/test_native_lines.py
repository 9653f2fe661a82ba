import os

import pytest

from fedtrain.core.native_lines import stderr_without


def fail():
    with stderr_without("pass 1:"):
        os.write(2, b"a warning\npass 1: done\n")
        raise ValueError("of the block")


def test_other_lines_and_errors_come_through(capfd):
    with pytest.raises(ValueError, match="of the block"):
        fail()
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "a warning\nafter\n"
