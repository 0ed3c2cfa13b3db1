"""Dapr's published client against the workflow API beside the SDKs', the metadata, and the shutdown."""

import json
import subprocess
from typing import Any

import pytest

from sidecar.schema import dapr_pb2
from tests.blackbox.harness import APPS, Sidecar, _environment, _python_of


def client(sidecar: Sidecar | None, role: str, version: str = "Beta1") -> Any:
    """What the client in the SDK's environment prints."""
    port, http = ("0", "0") if sidecar is None else (str(sidecar.port), str(sidecar.http_port))
    done = subprocess.run(
        [str(_python_of("dapr")), str(APPS / "dapr_client.py"), port, version, role],
        env=_environment(DAPR_HTTP_PORT=http),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_schema_is_that_of_the_public_package() -> None:
    theirs = client(None, "schema")
    for name, message in dapr_pb2.DESCRIPTOR.message_types_by_name.items():
        if name == "ShutdownRequest":
            continue
        for field in message.fields:
            made_of = field.message_type.name if field.message_type else ""
            assert theirs[name][str(field.number)] == [field.name, field.type, made_of], f"{name}.{field.name}"


@pytest.mark.parametrize("version", ["Alpha1", "Beta1"])
def test_the_client_plays_a_workflow_from_its_start_to_its_purge(
    own_sidecar: Sidecar, start_app: Any, version: str
) -> None:
    start_app("dapr", own_sidecar.start())
    ended, gone, missing = client(own_sidecar, "workflows", version)
    assert ended == {"dapr.workflow.input": '["go"]', "dapr.workflow.output": '["yes"]'}
    assert (gone, missing) == ("", "NOT_FOUND")


def test_the_client_reads_and_sets_metadata_and_ends_the_sidecar(own_sidecar: Sidecar, start_app: Any) -> None:
    start_app("dapr", own_sidecar.start())
    app_id, actors, extended = client(own_sidecar, "sidecar")
    assert app_id == "orders"
    assert "dapr.internal.default.orders.workflow" in actors
    assert extended == {"appNamespace": "default", "appPID": "7"}
    own_sidecar.stopped()
