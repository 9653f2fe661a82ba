from types import SimpleNamespace

import pytest

from fedtrain.project.run_privacy import _lost_clients

HISTORY = [{"lost_clients": ["region-01"]}, {"lost_clients": []}]
SERVICE = object()


def project(service, num_regions):
    rounds = SimpleNamespace(num_regions=num_regions)
    return SimpleNamespace(
        config=SimpleNamespace(service=service, rounds=rounds), is_protected=False
    )


@pytest.mark.parametrize(
    ("service", "num_regions", "lost"),
    [(None, None, 1), (SERVICE, None, 1), (None, 3, 1), (SERVICE, 3, None)],
)
def test_lost_regions_are_not_counted_as_clients(service, num_regions, lost):
    assert _lost_clients(project(service, num_regions), HISTORY) == lost
