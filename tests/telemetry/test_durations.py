from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from asynctaskd.telemetry.metrics.durations import OF_TASKS, Durations

seconds = st.one_of(st.sampled_from(OF_TASKS), st.floats(0, 10_000))


@given(st.lists(st.lists(seconds, min_size=1), min_size=1))
def test_a_histogram_says_what_that_of_the_library_says(told: list[list[float]]):
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    durations = Durations("x", "", "task", buckets=OF_TASKS)
    ours.register(durations)
    histogram = Histogram("asynctaskd_x", "", ["task"], buckets=OF_TASKS, registry=theirs)
    for some in told:
        durations.add(some, "a")
        for one in some:
            histogram.labels("a").observe(one)

    for bound in [*map(str, map(float, OF_TASKS)), "+Inf"]:
        labels = {"task": "a", "le": bound}
        assert ours.get_sample_value("asynctaskd_x_bucket", labels) == theirs.get_sample_value(
            "asynctaskd_x_bucket", labels
        )
    total = theirs.get_sample_value("asynctaskd_x_sum", {"task": "a"})
    assert ours.get_sample_value("asynctaskd_x_sum", {"task": "a"}) == pytest.approx(total)
