"""Dapr's own client for Python, as it is published, against the calls that are not the workflow SDK's.

Runs in the SDK's environment: `dapr_client.py PORT VERSION ROLE`. Role "schema" prints the messages that the SDK knows,
"workflows" plays a workflow from its start to its purge by the stub (its client has no methods for it), and
"sidecar" asks and sets metadata and ends the sidecar. Prints one JSON value.
"""

import json
import sys
import time
from typing import Any

import grpc
from dapr.clients import DaprClient
from dapr.proto import api_service_v1
from dapr.proto.runtime.v1 import metadata_pb2, workflow_pb2

_TIMEOUT = 20.0


def schema() -> dict[str, Any]:
    """Name -> field number -> name, type, and name of what it is made of."""
    found = {}
    for module in (workflow_pb2, metadata_pb2):
        for name, message in module.DESCRIPTOR.message_types_by_name.items():
            found[name] = {
                field.number: [field.name, field.type, field.message_type.name if field.message_type else ""]
                for field in message.fields
            }
    return found


class Workflows:
    """The calls of one version."""

    def __init__(self, port: str, version: str) -> None:
        self._stub = api_service_v1.DaprStub(grpc.insecure_channel(f"127.0.0.1:{port}"))
        self._version = version

    def call(self, verb: str, **fields: Any) -> Any:
        request = getattr(workflow_pb2, f"{verb}WorkflowRequest")(workflow_component="dapr", **fields)
        return getattr(self._stub, f"{verb}Workflow{self._version}")(request, timeout=_TIMEOUT)

    def until(self, instance: str, status: str) -> Any:
        end = time.monotonic() + _TIMEOUT
        while (found := self.call("Get", instance_id=instance)).runtime_status != status:
            assert time.monotonic() < end, (status, found)
            time.sleep(0.05)
        return found

    def play(self) -> list[Any]:
        """Return the properties at the end, the status of what is gone, and that of a missing instance's terminate."""
        self.call("Start", workflow_name="wait_events", instance_id="i", input=b'["go"]')
        self.until("i", "RUNNING")
        self.call("Pause", instance_id="i")
        self.until("i", "SUSPENDED")
        self.call("Resume", instance_id="i")
        self.call("RaiseEvent", instance_id="i", event_name="go", event_data=b'"yes"')
        ended = dict(self.until("i", "COMPLETED").properties)
        self.call("Purge", instance_id="i")
        gone = self.call("Get", instance_id="i").runtime_status
        self.call("Start", workflow_name="wait_events", instance_id="j", input=b'["go"]')
        self.call("Terminate", instance_id="j")
        self.until("j", "TERMINATED")
        self.call("Purge", instance_id="j")
        try:
            self.call("Terminate", instance_id="j")
        except grpc.RpcError as error:
            return [ended, gone, error.code().name]
        return [ended, gone, ""]


def sidecar(port: str) -> list[Any]:
    with DaprClient(f"127.0.0.1:{port}") as client:
        client.wait(_TIMEOUT)
        client.set_metadata("appPID", "7")
        found = client.get_metadata()
        client.shutdown()
        return [found.application_id, sorted(found.active_actors_count), dict(found.extended_metadata)]


if __name__ == "__main__":
    _, at, version, role = sys.argv
    roles = {"schema": schema, "workflows": lambda: Workflows(at, version).play(), "sidecar": lambda: sidecar(at)}
    print(json.dumps(roles[role]()))  # noqa: T201
