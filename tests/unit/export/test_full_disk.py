"""An export whose disk fills up: nothing half-written is ever visible."""

import subprocess
import sys
from pathlib import Path

import pytest

# A process of its own: the limit on file sizes stays for as long as a process lives.
_CHILD = """
import resource, sys
from pathlib import Path
import tensorflow as tf
from fedtrain.core.errors import FedtrainError
from fedtrain.export.release_folder import new_release

def write(kind, aside):
    if kind == "file":
        (aside / "model.tflite").write_bytes(bytes(1 << 20))
    elif kind == "saved_model":
        module = tf.Module()
        module.kernel = tf.Variable(tf.ones([1 << 18]))
        tf.saved_model.save(module, str(aside / "model" / "1"))
    else:
        with tf.io.TFRecordWriter(str(aside / "warmup")) as writer:
            writer.write(bytes(1 << 20))

resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
parent = Path(sys.argv[1])
for kind in ("file", "saved_model", "records"):
    try:
        with new_release(parent) as (aside, version):
            write(kind, aside)
    except FedtrainError as error:
        print(kind, error.exit_code, "make room" in str(error))
print(sorted(path.name for path in parent.iterdir()))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are POSIX")
def test_write_that_fails_leaves_no_release_whoever_wrote(tmp_path: Path) -> None:
    parent = tmp_path / "export"
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(parent)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.splitlines() == [
        "file 2 True",
        "saved_model 2 True",
        "records 2 True",
        "['.lock']",
    ], done.stderr[-2000:]
