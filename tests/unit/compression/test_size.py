import gzip

import numpy as np

from fedtrain.compression.cluster import clustered
from fedtrain.compression.constraint import chain, one_shot
from fedtrain.compression.prune import pruned
from fedtrain.compression.quantize import quantized
from fedtrain.compression.size import (
    file_gzip_bytes,
    num_distinct,
    sparsity,
    weights_gzip_bytes,
)
from fedtrain.models.model import ModelWeights

KERNEL = np.random.default_rng(7).normal(size=[200, 100]).astype(np.float32)


def share(*constraints):
    small = one_shot(ModelWeights([KERNEL]), chain(*constraints))
    return weights_gzip_bytes(small) / KERNEL.nbytes


def test_each_step_makes_the_weights_smaller():
    assert 0.2 < share(quantized()) < 0.26
    assert 0.05 < share(pruned(0.8), quantized()) < 0.12
    both = share(pruned(0.8), clustered(16))
    # Entropy: 0.72 bits say where the weights are, and four more at most which one.
    assert both < (0.72 + 0.2 * 4) / 32 * 1.25
    assert weights_gzip_bytes([KERNEL]) > 0.9 * KERNEL.nbytes


def test_files_are_measured_whatever_they_are_called(tmp_path):
    for name in ("a", "another"):
        (tmp_path / name).write_bytes(b"abc" * 500)
    sizes = {file_gzip_bytes(tmp_path / name) for name in ("a", "another")}
    assert sizes == {len(gzip.compress(b"abc" * 500, mtime=0))}


def test_zeros_and_values_are_counted_over_the_nest():
    assert sparsity({"a": np.zeros([2, 3]), "b": np.ones(2)}) == 0.75
    assert sparsity(()) == 0
    assert num_distinct(np.array([[1.0, 0.0], [1.0, 2.0]])) == 3
