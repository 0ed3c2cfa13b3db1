"""gRPC server reflection, in both of its versions: which services there are, and their schema, for tools and people."""

from collections.abc import AsyncIterator, Iterable, Iterator

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor

from sidecar.edge.rpc import parse
from sidecar.edge.transport.ports import Call, Handlers, Outflow, Refused, StatusCode

# Some are imported for what their import does: their services are in the pool then.
from sidecar.schema import admin_service_pb2, dapr_pb2, taskhub_service_pb2  # noqa: F401
from sidecar.schema import reflection_pb2 as pb

METHODS = tuple(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha"))
_MOST_BYTES = 16 * 1024
_OWN = "grpc.reflection.v1.ServerReflection"


class Reflection:
    """Handlers for a server that has handlers on these paths."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._pool = descriptor_pool.Default()
        self._services = sorted({_OWN, *(path.split("/")[1] for path in paths)})

    def handlers(self) -> Handlers:
        """Return the methods by path."""
        return Handlers(duplex=dict.fromkeys(METHODS, self._serve))

    async def _serve(self, call: Call, requests: AsyncIterator[bytes], out: Outflow) -> None:
        async for body in requests:
            if len(body) > _MOST_BYTES:  # it comes back with the answer
                raise Refused(StatusCode.RESOURCE_EXHAUSTED, f"a request has at most {_MOST_BYTES} bytes")
            out.send(self._answer(parse(pb.ServerReflectionRequest, body)).SerializeToString())
            await out.drained()

    def _answer(self, request: pb.ServerReflectionRequest) -> pb.ServerReflectionResponse:
        answer = pb.ServerReflectionResponse(valid_host=request.host, original_request=request)
        try:
            match request.WhichOneof("message_request"):
                case "list_services":
                    answer.list_services_response.service.extend(pb.ServiceResponse(name=n) for n in self._services)
                case "file_by_filename":
                    self._show(answer, self._pool.FindFileByName(request.file_by_filename))
                case "file_containing_symbol":
                    self._show(answer, self._pool.FindFileContainingSymbol(request.file_containing_symbol))
                case "all_extension_numbers_of_type":
                    kind = self._pool.FindMessageTypeByName(request.all_extension_numbers_of_type)
                    answer.all_extension_numbers_response.base_type_name = kind.full_name
                case "file_containing_extension":
                    raise KeyError  # proto3 has none
                case _:
                    _refuse(answer, StatusCode.INVALID_ARGUMENT, "the request asks for nothing")
        except KeyError:
            _refuse(answer, StatusCode.NOT_FOUND, "there is nothing of this name")
        return answer

    def _show(self, answer: pb.ServerReflectionResponse, file: FileDescriptor) -> None:
        """Answer with a file, and those that it stands on."""
        answer.file_descriptor_response.file_descriptor_proto.extend(one.serialized_pb for one in _with_all_below(file))


def _with_all_below(file: FileDescriptor) -> Iterator[FileDescriptor]:
    """Return a file and all that it imports, each once."""
    left, seen = [file], set[str]()
    while left:
        one = left.pop()
        if one.name not in seen:
            seen.add(one.name)
            yield one
            left += one.dependencies


def _refuse(answer: pb.ServerReflectionResponse, status: StatusCode, text: str) -> None:
    answer.error_response.error_code = int(status)
    answer.error_response.error_message = text
