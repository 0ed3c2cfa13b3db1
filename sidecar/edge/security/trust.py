"""What a sidecar proves with, to peers and to its app, and what callers must show: read from files."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from sidecar.config.settings import Settings
from sidecar.config.watched import Watched
from sidecar.edge.peer.links import Proof
from sidecar.edge.security import certificates
from sidecar.edge.security.api_tokens import ApiTokens
from sidecar.edge.security.certificates import Certificates, Files


@dataclass(frozen=True, slots=True)
class Trust:
    """Certificates are None where connections are in plaintext."""

    peer: Certificates | None
    proves: Proof | None
    app: Certificates | None
    tokens: ApiTokens

    def files(self) -> list[Watched[Any]]:
        """Return the files that all of it comes from."""
        certificates = [one.files for one in (self.peer, self.app) if one is not None]
        return certificates if self.tokens.file is None else [*certificates, self.tokens.file]


def read(settings: Settings) -> Trust:
    """Read the files that the settings name.

    Raises:
        StartError: one cannot be read, or is not what it should be.
    """
    peer = app = None
    if settings.peer_cert is not None and settings.peer_key is not None:
        names = certificates.names(settings.trust_domain, settings.namespace, settings.app_id)
        peer = Certificates(Files(settings.peer_cert, settings.peer_key, settings.peer_ca), names)
    if settings.app_cert is not None and settings.app_key is not None:
        app = Certificates(Files(settings.app_cert, settings.app_key, None))
    proves = None if peer is None else partial(certificates.proves, settings.trust_domain)
    return Trust(peer, proves, app, ApiTokens(settings.api_token, settings.api_token_file))
