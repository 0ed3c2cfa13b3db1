"""The reference, the alert rules and the dashboard name metrics that there are, and Prometheus takes them."""

import asyncio
import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.config.parsers import Secret
from sidecar.telemetry import catalog
from tests.inprocess.sidecars import Start
from tests.inprocess.world import end
from tests.ports import free_port
from tests.telemetry import reference

MONITORING = Path(__file__).parent.parent.parent / "docker" / "monitoring"
RULES = MONITORING / "rules.yml"
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))
NAME = re.compile(r"\b(?:sidecar|dapr)_\w+")
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}
LABELS = re.compile(r"by \(([^)]*)\)")


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return list(group["rules"])


def panels() -> Iterator[dict[str, Any]]:
    yield from (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def expressions() -> list[str]:
    asked = [rule["expr"] for rule in rules()]
    return asked + [target["expr"] for panel in panels() for target in panel["targets"]]


def test_the_reference_is_what_the_code_says() -> None:
    assert reference.DOCUMENT.read_text(encoding="utf-8") == reference.text(), "run: make metrics"


def test_names_and_units_are_what_prometheus_asks_for() -> None:
    names = [metric.name for metric in catalog.ALL]
    assert len(set(names)) == len(names)
    for metric in catalog.ALL:
        own = metric.name.startswith("sidecar_")
        assert own or metric.name.startswith("dapr_runtime_workflow_")
        assert not own or (metric.kind == "counter") == metric.name.endswith("_total"), metric.name
        assert bool(metric.buckets) == (metric.kind == "histogram"), metric.name


@pytest.mark.parametrize("expression", expressions())
def test_rules_and_dashboard_ask_for_metrics_and_labels_that_there_are(expression: str) -> None:
    known = {metric.name + suffix: metric for metric in catalog.ALL for suffix in SUFFIXES[metric.kind]}
    found = NAME.findall(expression)
    assert found
    for name in found:
        assert name in known, name
    labels = {label for name in found for label in known[name].labels} | {"app_id", "namespace", "le"}
    asked = {label.strip() for group in LABELS.findall(expression) for label in group.split(",")}
    assert asked <= labels


def test_every_alert_says_what_to_do() -> None:
    assert len({rule["alert"] for rule in rules()}) == len(rules())
    for rule in rules():
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert {"summary", "what_to_do"} <= rule["annotations"].keys()


def test_every_metric_is_on_the_dashboard() -> None:
    asked = " ".join(target["expr"] for panel in panels() for target in panel["targets"])
    assert not [metric.name for metric in catalog.ALL if metric.name not in asked]


def test_panels_do_not_cover_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


# --- with Debian's Prometheus --------------------------------------------------------------------------------------


def asked(port: int, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}", timeout=5) as reply:
        return json.load(reply)["data"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """The port of a Prometheus, and the file in which it finds targets."""
    port = free_port()
    targets = tmp_path / "targets.json"
    targets.write_text("[]")
    configuration = yaml.safe_load((MONITORING / "prometheus.yml").read_text(encoding="utf-8"))
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    configuration["rule_files"] = [str(RULES)]
    (job,) = configuration["scrape_configs"]
    del job["static_configs"]
    job["file_sd_configs"] = [{"files": [str(targets)], "refresh_interval": "1s"}]
    job["authorization"] = {"credentials": "open sesame"}
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump(configuration))
    subprocess.run(["promtool", "check", "config", str(file)], check=True, capture_output=True)
    flags = [f"--config.file={file}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            ["prometheus", *flags, f"--web.listen-address=127.0.0.1:{port}"], stderr=log, stdout=log
        )
        yield port, targets
        process.terminate()
        process.wait(20)


@pytest.mark.hard
def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    checked = subprocess.run(["promtool", "check", "rules", str(RULES)], check=False, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert f"{len(rules())} rules found" in checked.stdout


@pytest.mark.hard
async def test_prometheus_collects_the_metrics_and_evaluates_every_rule(start: Start, server: tuple[int, Path]) -> None:
    port, targets = server
    orders = await start("orders", api_token=Secret("open sesame"))
    orders.metadata = (("dapr-api-token", "open sesame"),)
    orders.worker(lambda events: [end()])
    targets.write_text(json.dumps([{"targets": [f"127.0.0.1:{orders.ports.http}"]}]))
    await orders.begin("w")
    await orders.outcome("w")
    query = "query?query=dapr_runtime_workflow_execution_count"
    until = time.monotonic() + 60
    found: list[Any] = []
    while not found and time.monotonic() < until:
        await asyncio.sleep(0.5)
        try:
            found = (await asyncio.to_thread(asked, port, query))["result"]
        except OSError:
            continue
    (sample,) = found
    labels = {"app_id": "orders", "namespace": "default", "workflow_name": "flow", "status": "success"}
    assert labels.items() <= sample["metric"].items()
    assert sample["value"][1] == "1"
    (target,) = (await asyncio.to_thread(asked, port, "targets"))["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    await asyncio.sleep(2)
    (group,) = (await asyncio.to_thread(asked, port, "rules"))["groups"]
    assert [rule["name"] for rule in group["rules"]] == [rule["alert"] for rule in rules()]
    assert {(rule["health"], rule.get("lastError", "")) for rule in group["rules"]} == {("ok", "")}
