import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
# As `fedtrain simulate` sets it: a run is resumed with the threads that it had.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
# Checked by its hash, so it need not be fetched again for each session's own cache.
_CACHES = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
os.environ.setdefault("FEDTRAIN_TFJS_DIR", str(_CACHES / "fedtrain" / "tfjs"))

import fedtrain  # noqa: E402 - the settings above come first

assert fedtrain.__version__


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What earlier runs found to be fastest changes last bits: tests start afresh."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDTRAIN_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def data_dir(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of data files, named by FEDTRAIN_DATA_DIR; skips where absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(os.environ.get("FEDTRAIN_DATA_DIR") or beside)
    if not path.is_dir():
        pytest.skip(f"no data files: FEDTRAIN_DATA_DIR is not set and {path} is absent")
    monkeypatch.setenv("FEDTRAIN_DATA_DIR", str(path))
    return path
