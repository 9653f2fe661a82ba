"""Who gets which rows where clients' labels differ: draws from label numbers alone.

Sources: Hsu, Qi and Brown (2019), https://arxiv.org/abs/1909.06335; Li, Diao, Chen and
He (2022), Federated learning on non-IID data silos, https://arxiv.org/abs/2102.02079.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from fedtrain.core.errors import ConfigError

Assignment = npt.NDArray[np.int64]
Labels = npt.NDArray[np.int64]


def clients_by_label(
    labels: Labels, num_clients: int, concentration: float, random: np.random.Generator
) -> Assignment:
    """Each label's rows in proportions drawn over clients (Li et al., 2022).

    A client that has its even share of all rows already gets no more.
    """
    assignment = np.zeros(len(labels), np.int64)
    sizes = np.zeros(num_clients, np.int64)
    for label in range(labels.max() + 1):
        rows = random.permutation(np.flatnonzero(labels == label))
        shares = random.dirichlet(np.full(num_clients, concentration))
        shares = np.where(sizes < len(labels) / num_clients, shares, 0.0)
        total = shares.sum()
        shares = shares / total if total > 0 else np.full(num_clients, 1 / num_clients)
        cuts = (np.cumsum(shares) * len(rows)).astype(np.int64)[:-1]
        counts = np.diff(cuts, prepend=0, append=len(rows))
        assignment[rows] = np.repeat(np.arange(num_clients), counts)
        sizes += counts
    return assignment


def labels_by_client(
    labels: Labels, num_clients: int, concentration: float, random: np.random.Generator
) -> Assignment:
    """Equal numbers of rows, label proportions drawn by client (Hsu et al., 2019)."""
    left = [
        list(random.permutation(np.flatnonzero(labels == k))) for k in np.unique(labels)
    ]
    overall = np.bincount(labels) / len(labels)
    sizes = np.bincount(np.arange(len(labels)) % num_clients, minlength=num_clients)
    assignment = np.zeros(len(labels), np.int64)
    for client, size in enumerate(sizes):
        shares = random.dirichlet(concentration * overall)
        for row in _drawn_rows(left, shares, size, random):
            assignment[row] = client
    return assignment


def labels_by_owner(
    labels: Labels, num_clients: int, num_labels: int, random: np.random.Generator
) -> Assignment:
    """Every client owns ``num_labels`` labels, whose owners share their rows evenly."""
    owners = _label_owners(num_clients, num_labels, labels.max() + 1, random)
    assignment = np.zeros(len(labels), np.int64)
    for label, owned_by in enumerate(owners):
        rows = random.permutation(np.flatnonzero(labels == label))
        assignment[rows] = np.resize(random.permutation(owned_by), len(rows))
    return assignment


def _drawn_rows(
    left: list[list[int]], shares: Any, size: int, random: np.random.Generator
) -> list[int]:
    rows = []
    for _ in range(size):
        available = np.array([len(rows_left) > 0 for rows_left in left])
        weights = np.where(available, shares, 0.0)
        weights = weights if weights.sum() > 0 else available.astype(float)
        rows.append(left[random.choice(len(left), p=weights / weights.sum())].pop())
    return rows


def _label_owners(
    num_clients: int, num_labels: int, num_classes: int, random: np.random.Generator
) -> list[list[int]]:
    if num_labels > num_classes or num_clients * num_labels < num_classes:
        raise ConfigError(
            f"{num_clients} clients with num_labels={num_labels} labels each cannot "
            f"cover {num_classes} labels; give num_labels between "
            f"{-(-num_classes // num_clients)} and {num_classes}."
        )
    owners: list[list[int]] = [[] for _ in range(num_classes)]
    for client in random.permutation(num_clients):
        # The labels with fewest owners first, in random order among equals.
        counts = np.array([len(owned_by) for owned_by in owners], float)
        order = np.lexsort([random.random(num_classes), counts])
        for label in order[:num_labels]:
            owners[label].append(int(client))
    return owners
