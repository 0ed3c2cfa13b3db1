"""What a `daprd` takes from Dapr's configuration files."""

from pathlib import Path

import pytest

from sidecar.config.settings import ConfigError
from sidecar.daprd import configuration

ALL = """
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: appconfig}
spec:
  mtls: {enabled: true}
  features: [{name: Something, enabled: true}]
  accessControl: {defaultAction: deny}
  workflow:
    maxConcurrentWorkflowInvocations: 10
    maxConcurrentActivityInvocations: 100
    stateRetentionPolicy: {anyTerminal: 360h, completed: 1m, failed: 1h30m, terminated: 0s}
  tracing:
    samplingRate: "1"
    zipkin: {endpointAddress: "http://${HOST}:9411/api/v2/spans"}
    otel: {endpointAddress: "collector:4318", protocol: http, isSecure: false}
"""


def read(folder: Path, *texts: str, **environ: str) -> dict[str, object]:
    files = []
    for number, text in enumerate(texts):
        files.append(folder / f"{number}.yaml")
        files[-1].write_text(text)
    return {name: wish.raw for name, wish in configuration.read([str(file) for file in files], environ).items()}


def spec(text: str) -> str:
    return f"kind: Configuration\nspec:\n  {text}\n"


def test_all_that_concerns_workflows_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, ALL, HOST="zipkin") == {
        "limits": {"workflows": 10, "activities": 100},
        "retention": {"any": 1_296_000.0, "completed": 60.0, "failed": 5_400.0, "terminated": 0.001},
        "trace_zipkin": "http://zipkin:9411/api/v2/spans",
        "trace_otlp": "http://collector:4318/v1/traces",
    }


def test_a_file_that_is_not_there_or_empty_wants_nothing(tmp_path: Path) -> None:
    assert configuration.read([str(tmp_path / "gone.yaml")], {}) == {}
    assert read(tmp_path, "") == {}
    assert read(tmp_path, "kind: Configuration\nspec:\n") == {}


def test_of_several_files_the_last_one_counts(tmp_path: Path) -> None:
    first = spec("workflow: {maxConcurrentWorkflowInvocations: 1, stateRetentionPolicy: {failed: 1h}}")
    found = read(tmp_path, first, spec("workflow: {maxConcurrentActivityInvocations: 2}"))
    assert found == {"retention": {"failed": 3_600.0}, "limits": {"activities": 2}}


@pytest.mark.parametrize(
    ("tracing", "expected"),
    [
        ("{samplingRate: '0', zipkin: {endpointAddress: 'http://z'}}", {}),
        ("{zipkin: {endpointAddress: 'http://z'}}", {"trace_zipkin": "http://z"}),
        ("{samplingRate: '0.1', zipkin: {endpointAddress: 'http://z'}}", {"trace_zipkin": "http://z"}),
        ("{zipkin: {endpointAddress: ''}, otel: {endpointAddress: ''}}", {}),
        ("{otel: {endpointAddress: 'c:4318', protocol: http}}", {"trace_otlp": "https://c:4318/v1/traces"}),
        ("{otel: {endpointAddress: 'http://c:4318/'}}", {"trace_otlp": "http://c:4318/v1/traces"}),
        ("{otel: {endpointAddress: 'http://c:4318/own'}}", {"trace_otlp": "http://c:4318/own"}),
        ("{otel: {endpointAddress: 'c:4317', protocol: grpc}}", {"trace_otlp": "grpcs://c:4317"}),
        ("{otel: {endpointAddress: 'c:4317', protocol: grpc, isSecure: false}}", {"trace_otlp": "grpc://c:4317"}),
        (
            "{otel: {endpointAddress: 'http://c:4317', protocol: grpc, isSecure: false}}",
            {"trace_otlp": "grpc://c:4317"},
        ),
    ],
)
def test_collectors_of_traces(tmp_path: Path, tracing: str, expected: dict[str, object]) -> None:
    assert read(tmp_path, spec(f"tracing: {tracing}")) == expected


@pytest.mark.parametrize("most", ["0", "-1", "null"])
def test_no_limit_is_none(tmp_path: Path, most: str) -> None:
    assert read(tmp_path, spec(f"workflow: {{maxConcurrentWorkflowInvocations: {most}}}")) == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("kind: [", "not valid YAML"),
        ("kind: Component", "this is no Configuration"),
        ("[]", "write keys with values"),
        (spec("workflow: [1]"), "workflow: write keys"),
        (spec("workflow: {stateRetentionPolicy: {completed: soon}}"), "completed: 'soon' is no time"),
        (spec("workflow: {stateRetentionPolicy: {done: 1h}}"), "'done' is not known"),
    ],
)
def test_what_is_wrong_is_said_with_its_file(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=r"0\.yaml.*" + reason.replace("[", r"\[")):
        read(tmp_path, text)
