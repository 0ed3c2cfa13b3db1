"""What a sidecar shows at /metrics, read by the library's own parser."""

import asyncio

from prometheus_client.parser import text_string_to_metric_families

from tests.edge.http.test_surface import ask
from tests.inprocess.sidecars import Node

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: bytes) -> Series:
    """The value of each series, by name and labels but for those that all have."""
    own = {"app_id", "namespace"}
    return {
        (sample.name, frozenset((key, value) for key, value in sample.labels.items() if key not in own)): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(series: Series, name: str, **labels: str) -> float:
    return series.get((name, frozenset(labels.items())), -1.0)


async def scraped(node: Node) -> Series:
    return parsed((await ask(node.ports.http, "/metrics")).body)


async def until_scraped(node: Node, name: str, wanted: float, **labels: str) -> Series:
    """What is shown once a value is what it should be."""
    for _ in range(200):
        series = await scraped(node)
        if value(series, name, **labels) == wanted:
            return series
        await asyncio.sleep(0.02)
    raise AssertionError(f"{name} {labels} is {value(series, name, **labels)} and not {wanted}")
