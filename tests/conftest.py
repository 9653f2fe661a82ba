import os
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import fedtrain

assert fedtrain.__version__


@pytest.fixture
def data_dir(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of data files, named by FEDTRAIN_DATA_DIR; skips where absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(os.environ.get("FEDTRAIN_DATA_DIR") or beside)
    if not path.is_dir():
        pytest.skip(f"no data files: FEDTRAIN_DATA_DIR is not set and {path} is absent")
    monkeypatch.setenv("FEDTRAIN_DATA_DIR", str(path))
    return path
