"""Who a sidecar proves to be: its certificate, its key and, on the peer link, the deployment's CA, in PEM files.

The files are read again when they change, so that certificates can be renewed without a restart. An app is named in a
certificate by the SPIFFE ID `spiffe://<trust domain>/ns/<namespace>/<app>` and the DNS name `<app>.<namespace>`.
"""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import structlog

from sidecar.actors.clock import Clock
from sidecar.config.settings import StartError
from sidecar.config.watched import Watched
from sidecar.edge.transport.ports import NO_NAMES, PeerNames, Tls

if TYPE_CHECKING:
    from cryptography import x509

_LOOK_SECONDS = 60.0
_WARN_AT = 0.2  # of the certificate's life that is left
log = structlog.get_logger(__name__)


class Files(NamedTuple):
    """Where they are; without a CA callers need no certificate."""

    certificate: Path
    key: Path
    ca: Path | None


def spiffe_id(trust_domain: str, namespace: str, app: str) -> str:
    """Return the URI that names an app in its certificate."""
    return f"spiffe://{trust_domain}/ns/{namespace}/{app}"


def dns_name(namespace: str, app: str) -> str:
    """Return the host name that names an app in its certificate."""
    return f"{app}.{namespace}"


def names(trust_domain: str, namespace: str, app: str) -> PeerNames:
    """Return all that the certificate of an app must name."""
    return PeerNames((spiffe_id(trust_domain, namespace, app),), (dns_name(namespace, app),))


def missing(wanted: PeerNames, found: PeerNames) -> list[str]:
    """Return which of the names are not found as what they are: a DNS name proves no URI, nor the other way."""
    return sorted({*wanted.uris} - {*found.uris} | {*wanted.dns} - {*found.dns})


def proves(trust_domain: str, identity: PeerNames, namespace: str) -> frozenset[str]:
    """Return the apps of a namespace whose certificate this is: those that it has all the names of."""
    prefix = spiffe_id(trust_domain, namespace, "")
    apps = {uri.removeprefix(prefix) for uri in identity.uris if uri.startswith(prefix)}
    return frozenset(app for app in apps if not missing(names(trust_domain, namespace, app), identity))


def ends(file: Path) -> datetime:
    """Return when the first of the certificates in a file ends. Raises StartError."""
    from cryptography import x509  # noqa: PLC0415 - slow to import, and only TLS needs it

    try:
        found = x509.load_pem_x509_certificates(_content(file))
    except ValueError as error:
        raise StartError(f"{file}: no certificate in PEM") from error
    return min(one.not_valid_after_utc for one in found)


class _Held(NamedTuple):
    pem: Tls
    begins: datetime
    ends: datetime


class Certificates:
    """A certificate of this sidecar, as it is in its files now."""

    def __init__(self, files: Files, names: PeerNames = NO_NAMES) -> None:
        """Read the files; `names` must all be in the certificate.

        Raises:
            StartError: one cannot be read, or is not what it should be.
        """
        self._paths = files
        self._names = names
        self._warned: datetime | None = None  # of the end of a certificate
        every = tuple(file for file in files if file is not None)
        self.files = Watched(every, self._read, lambda now: f"a certificate until {now.ends.isoformat()}")

    def pem(self) -> Tls:
        """Return what is in force; files that have just become wrong are left alone until they are right."""
        return self.files.look().pem

    def ends(self) -> float:
        """Return when it ends, in seconds of Unix time."""
        return self.files.look().ends.timestamp()

    async def watch(self, clock: Clock) -> None:
        """Look at the files every minute, for ever, and log once when little of the certificate's life is left."""
        while True:
            held = self.files.look()
            left = held.ends.timestamp() - clock.now() / 1e6
            if left < _WARN_AT * (held.ends - held.begins).total_seconds() and self._warned != held.ends:
                self._warned = held.ends
                file = str(self._paths.certificate)
                log.warning("a certificate ends soon: renew it", file=file, until=held.ends.isoformat())
            await clock.sleep(_LOOK_SECONDS)

    def _read(self) -> _Held:
        from cryptography import x509  # noqa: PLC0415 - slow to import, and only TLS needs it
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

        certificate, private, authority = self._paths
        pem = Tls(_content(certificate), _content(private), None if authority is None else _content(authority))
        try:
            own = x509.load_pem_x509_certificates(pem.certificate)[0]
        except ValueError as error:
            raise StartError(f"{self._paths.certificate}: no certificate in PEM") from error
        try:
            key = serialization.load_pem_private_key(pem.key, None)
        except (ValueError, TypeError) as error:
            raise StartError(f"{self._paths.key}: no private key in PEM without a password") from error
        try:
            if pem.ca is not None:
                x509.load_pem_x509_certificates(pem.ca)
        except ValueError as error:
            raise StartError(f"{authority}: no certificate in PEM") from error
        if key.public_key() != own.public_key():
            raise StartError(f"{self._paths.key} is not the key of {self._paths.certificate}")
        unnamed = missing(self._names, _names_in(own))
        if unnamed:
            raise StartError(f"{self._paths.certificate} does not name this app: {' and '.join(unnamed)}")
        return _Held(pem, own.not_valid_before_utc, own.not_valid_after_utc)


def _names_in(certificate: "x509.Certificate") -> PeerNames:
    from cryptography import x509  # noqa: PLC0415

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return NO_NAMES
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return PeerNames(tuple(uris), tuple(names.get_values_for_type(x509.DNSName)))


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise StartError(f"cannot read {file}: {(error.strerror or str(error)).lower()}") from error
