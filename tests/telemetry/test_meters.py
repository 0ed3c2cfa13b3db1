"""Metrics in Prometheus's text format: names, and how many series there can be."""

from sidecar.telemetry import catalog
from sidecar.telemetry.catalog import Metric
from sidecar.telemetry.meters import Meters
from tests.telemetry.scrape import parsed, value


def test_a_counter_has_exactly_the_name_that_existing_boards_ask_for() -> None:
    meters = Meters("orders", "default")
    meters.counter(Metric("dapr_thing_count", "counter", "Things.", ("thing",))).of("a").inc(3)
    meters.counter(Metric("sidecar_things_total", "counter", "Own.", ("thing",))).of("a").inc(2)
    text = meters.shown().decode()
    assert 'dapr_thing_count{app_id="orders",namespace="default",thing="a"} 3.0' in text
    assert "# TYPE dapr_thing_count untyped" in text
    assert 'sidecar_things_total{app_id="orders",namespace="default",thing="a"} 2.0' in text
    assert "# TYPE sidecar_things_total counter" in text


def test_no_series_tells_when_it_began() -> None:
    meters = Meters("orders", "default")
    meters.histogram(Metric("sidecar_x_seconds", "histogram", "X.", (), (1.0, 2.0))).of().observe(1.5)
    text = meters.shown().decode()
    assert "_created" not in text
    assert 'sidecar_x_seconds_bucket{app_id="orders",le="2.0",namespace="default"} 1.0' in text


def test_names_beyond_the_bound_are_counted_together() -> None:
    meters = Meters("orders", "default")
    family = meters.counter(Metric("sidecar_things_total", "counter", "Things.", ("thing", "status")))
    for number in range(10_000):
        family.of(f"name {number}", "success").inc()
    family.of("name 1", "failed").inc()
    family.of("one more", "failed").inc()
    series = parsed(meters.shown())
    names = {dict(labels)["thing"] for name, labels in series if name == "sidecar_things_total"}
    assert len(names) == catalog.MOST_VALUES + 1
    others = value(series, "sidecar_things_total", thing="other", status="success")
    assert others == 10_000 - catalog.MOST_VALUES
    assert value(series, "sidecar_things_total", thing="name 1", status="failed") == 1
    assert value(series, "sidecar_things_total", thing="other", status="failed") == 1


def test_of_what_is_looked_at_the_number_is_bounded_too() -> None:
    meters = Meters("orders", "default")
    metric = Metric("sidecar_level", "gauge", "Levels.", ("app",))
    meters.looks({metric: lambda: (((f"app {number}",), 1.0) for number in range(10_000))})
    shown = [name for name, _ in parsed(meters.shown()) if name == "sidecar_level"]
    assert len(shown) == catalog.MOST_VALUES


def test_a_label_cannot_forge_a_line() -> None:
    meters = Meters("orders", "default")
    meters.counter(Metric("sidecar_things_total", "counter", "Things.", ("thing",))).of('a"} 1\nevil 2\\').inc()
    assert value(parsed(meters.shown()), "sidecar_things_total", thing='a"} 1\nevil 2\\') == 1
    assert not [line for line in meters.shown().decode().splitlines() if line.startswith("evil")]
