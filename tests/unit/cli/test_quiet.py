import signal
import sys
from types import SimpleNamespace

import pytest

from fedtrain.cli import quiet


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_tensorflow_loads_is_acted_on_after_it(monkeypatch, number):
    done = []

    def imported(name):
        try:
            signal.raise_signal(number)
        except BaseException:  # noqa: BLE001 - as code that an import runs may do
            done.append("lost")
        done.append(name)
        return SimpleNamespace()

    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setattr(quiet, "importlib", SimpleNamespace(import_module=imported))
    before = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            quiet.load_tensorflow(start=False)
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
    assert done == ["tensorflow"]
