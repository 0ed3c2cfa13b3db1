"""Which calls of clients may name another app, where they do, and what is settled before they are sent on. Pure."""

from sidecar.core.ids import Ids
from sidecar.edge.rpc import parse
from sidecar.schema import taskhub_pb2 as pb

# The field of each request that names the app it is for: that of Dapr's SDKs from 1.19, else one of our own.
ROUTER_FIELDS = {
    "StartInstance": 11,
    "GetInstance": 3,
    "WaitForInstanceStart": 3,
    "WaitForInstanceCompletion": 3,
    "RaiseEvent": 4,
    "TerminateInstance": 4,
    "SuspendInstance": 3,
    "ResumeInstance": 3,
    "PurgeInstances": 5,
    "RerunWorkflowFromEvent": 7,
    "QueryInstances": 1001,
    "GetInstanceHistory": 1001,
    "RewindInstance": 1001,
    "RestartInstance": 1001,
}
# What changes nothing: asked again it is answered again, so nothing of it is kept once nobody waits.
READS = frozenset(
    {"GetInstance", "WaitForInstanceStart", "WaitForInstanceCompletion", "QueryInstances", "GetInstanceHistory"}
)


def named(name: str, body: bytes, ids: Ids) -> bytes:
    """Choose the IDs that the receiver would choose, so that a call that is tried again is the same one."""
    if name == "StartInstance":
        start = parse(pb.CreateInstanceRequest, body)
        start.instance_id = start.instance_id or ids.new_id()
        start.execution_id.value = start.execution_id.value or ids.new_id()
        return start.SerializeToString()
    if name == "RerunWorkflowFromEvent":
        rerun = parse(pb.RerunRequest, body)
        rerun.new_instance_id = rerun.new_instance_id or ids.new_id()
        return rerun.SerializeToString()
    if name == "RestartInstance":
        restart = parse(pb.RestartInstanceRequest, body)
        restart.new_instance_id = ids.new_id() if restart.with_new_instance_id else ""
        return restart.SerializeToString()
    return body
