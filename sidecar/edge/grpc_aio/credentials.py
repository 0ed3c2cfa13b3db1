"""What a server proves to those who connect, and how a certificate is renewed while it serves."""

import threading
from collections.abc import Callable
from typing import cast

import grpc

from sidecar.edge.transport.ports import Tls

RENEWAL_SECONDS = 1.0  # for which handshakes wait when a certificate is renewed


def server_credentials(tls: Callable[[], Tls]) -> grpc.ServerCredentials:
    """Credentials that ask for the certificate at each handshake, on threads of grpc's own."""
    first = tls()
    # That nothing is to change is said with None, which the types of grpc do not know.
    renewal = cast("Callable[[], grpc.ServerCertificateConfiguration]", _Renewal(tls, first))
    asks = first.ca is not None
    return grpc.dynamic_ssl_server_credentials(_configured(first), renewal, require_client_authentication=asks)


def _configured(tls: Tls) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(tls.key, tls.certificate)], tls.ca)


class _Renewal:
    """Tells grpc of a certificate that is not the one it has.

    A new configuration frees the one before, though handshakes that have just asked may not have taken it yet: the
    process would die of that. grpc asks for one handshake after the other, so those that have asked are given the time
    to take what they were told of, while the next ones wait.
    """

    def __init__(self, tls: Callable[[], Tls], first: Tls) -> None:
        self._tls = tls
        self._last = first
        self._one_at_a_time = threading.Lock()

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        with self._one_at_a_time:
            own = self._tls()
            if own == self._last:
                return None
            threading.Event().wait(RENEWAL_SECONDS)
            self._last = own
            return _configured(own)
