"""The run's progress and cost, and when certificates end, for Prometheus."""

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from aggregator.page_state import Shown, page_state


class PageMetrics(Collector):
    """Gives as numbers what the page shows.

    Args:
      shown: Where the page looks.
    """

    def __init__(self, shown: Shown) -> None:
        self._shown = shown

    def describe(self) -> list[Metric]:
        """Nothing: registering it must not look at the run."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The metrics of now."""
        state = page_state(self._shown)
        run, privacy = state["run"], state["privacy"]
        yield GaugeMetricFamily(
            "fedtrain_rounds_done", "Rounds that are finished.", run["rounds_done"]
        )
        yield GaugeMetricFamily(
            "fedtrain_rounds_planned", "Rounds of the plan.", run["num_rounds"]
        )
        ended = float(run["status"] != "running")
        yield GaugeMetricFamily("fedtrain_run_ended", "1 once it has.", ended)
        if privacy is not None:
            yield GaugeMetricFamily(
                "fedtrain_epsilon_spent",
                "After the last finished round.",
                privacy["spent_epsilon"],
            )
            yield GaugeMetricFamily(
                "fedtrain_epsilon_approved", "Of the plan.", privacy["epsilon"]
            )
        ends = GaugeMetricFamily(
            "fedtrain_certificate_ends_seconds", "Unix time.", labels=["holder"]
        )
        server = state["federation"]["server_certificate_ends_unix_ms"]
        ends.add_metric(["server"], server / 1000)
        for partner in state["partners"]:
            if partner["state"] == "admitted":
                holder = f"client/{partner['client_id']}"
                ends.add_metric([holder], partner["ends_unix_ms"] / 1000)
        yield ends
