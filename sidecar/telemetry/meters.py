"""The metrics of one sidecar as Prometheus reads them: counted in memory, looked at when asked for, bounded."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sidecar.telemetry import catalog

OWN = ("app_id", "namespace")
Reading = tuple[tuple[str, ...], float]  # labels and value
Look = Callable[[], Iterable[Reading]]
M = TypeVar("M")


class _Shown(Collector):
    """A metric under exactly its name, and without the times at which its series began, which double their number."""

    def __init__(self, metric: Counter | Histogram, name: str) -> None:
        self._metric = metric
        self._name = name

    def collect(self) -> Iterator[Metric]:
        for found in self._metric.collect():
            # The library appends "_total" to a counter that has another name, but not to one without a type.
            named_otherwise = found.type == "counter" and not self._name.endswith("_total")
            shown = Metric(found.name, found.documentation, "unknown" if named_otherwise else found.type)
            for sample in found.samples:
                name = self._name if found.type == "counter" else sample.name
                if not sample.name.endswith("_created"):
                    shown.add_sample(name, sample.labels, sample.value)
            yield shown


class Family(Generic[M]):
    """One metric with a series for each combination of labels; values of the first label are bounded in number."""

    def __init__(self, made: Callable[..., M], own: tuple[str, ...]) -> None:
        """`made` makes a series of the values of all labels; `own` are the first of them."""
        self._made = made
        self._own = own
        self._series: dict[tuple[str, ...], M] = {}
        self._values: set[str] = set()

    def of(self, *labels: str) -> M:
        """Return the series with these values of its labels."""
        found = self._series.get(labels)
        if found is not None:
            return found
        if labels and labels[0] not in self._values and labels[0] != catalog.OTHER:
            if len(self._values) >= catalog.MOST_VALUES:
                return self.of(catalog.OTHER, *labels[1:])
            self._values.add(labels[0])
        series = self._series[labels] = self._made(*self._own, *labels)
        return series


class _Looks(Collector):
    """What is looked at when it is asked for."""

    def __init__(self, looks: Mapping[catalog.Metric, Look], own: tuple[str, ...]) -> None:
        self._looks = looks
        self._own = own

    def collect(self) -> Iterator[Metric]:
        for metric, look in self._looks.items():
            family = GaugeMetricFamily(metric.name, metric.text, labels=(*OWN, *metric.labels))
            for labels, value in list(look())[: catalog.MOST_VALUES]:
                family.add_metric((*self._own, *labels), value)
            yield family


class Meters:
    """All metrics of the sidecar of an app."""

    def __init__(self, app_id: str, namespace: str) -> None:
        self._own = (app_id, namespace)
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)

    def counter(self, metric: catalog.Metric) -> Family[Counter]:
        """Return a counter to count with; once for each metric."""
        made = Counter(metric.name, metric.text, (*OWN, *metric.labels), registry=None)
        self._registry.register(_Shown(made, metric.name))
        return Family(made.labels, self._own)

    def histogram(self, metric: catalog.Metric) -> Family[Histogram]:
        """Return a histogram to observe with; once for each metric."""
        made = Histogram(metric.name, metric.text, (*OWN, *metric.labels), registry=None, buckets=metric.buckets)
        self._registry.register(_Shown(made, metric.name))
        return Family(made.labels, self._own)

    def looks(self, looks: Mapping[catalog.Metric, Look]) -> None:
        """Add what is looked at."""
        self._registry.register(_Looks(looks, self._own))

    def shown(self) -> bytes:
        """Return all of them in Prometheus's text format."""
        return generate_latest(self._registry)
