"""Settings that say where something listens: ports, hosts and the addresses of other apps."""

import ipaddress
import re
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from urllib.parse import urlsplit

from sidecar.config.parsers import app_id, items, quoted

_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_ADDRESS = re.compile(r"(\[[^\[\]]+\]|[^:\[\]]+):([0-9]{1,5})")
_ADDRESS_EXAMPLE = "write host:port, such as 127.0.0.1:50012 or [::1]:50012"
_MAX_PORT = 65535


def port(raw: object) -> int:
    """A port to listen on, 0 to 65535."""
    digits = str(raw) if isinstance(raw, int | str) and not isinstance(raw, bool) else ""
    if not re.fullmatch(r"[0-9]{1,5}", digits) or int(digits) > _MAX_PORT:
        hint = f"give a number from 0 to {_MAX_PORT}, 0 for any free one"
        raise ValueError(f"{quoted(raw)} is not a port: {hint}")
    return int(digits)


def ports(raw: object) -> tuple[int, ...]:
    """One port or several, in a list or separated by commas."""
    if found := tuple(port(item) for item in items(raw)):
        return found
    raise ValueError("the list is empty: name at least one port, 0 for any free one")


def host(raw: object) -> str:
    """A host name or an IP address; IPv6 comes back without brackets."""
    text = raw if isinstance(raw, str) else ""
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        if re.fullmatch(r"[0-9.]*", text) or not _HOST_NAME.fullmatch(text):
            hint = "give a name or an IP address, without a port"
            raise ValueError(f"{quoted(raw)} is not a host: {hint}") from None
    return text


def url(raw: object) -> str:
    """The URL of an HTTP service."""
    return _url(raw, ("http", "https"), "http://host:port/path, or https")


def otlp_url(raw: object) -> str:
    """The URL of a collector of OTLP, over HTTP or gRPC."""
    schemes = ("http", "https", "grpc", "grpcs")
    return _url(raw, schemes, "http://host:port/path or https for OTLP over HTTP, grpc://host:port or grpcs over gRPC")


def _url(raw: object, schemes: Collection[str], form: str) -> str:
    text = str(raw).strip()
    parts = urlsplit(text)
    if parts.username or parts.password:
        raise ValueError("a URL is shown and logged: give what proves who calls in another way than in it")
    if parts.scheme not in schemes or not parts.hostname or not text.isprintable():
        raise ValueError(f"{quoted(raw)} is no URL: write {form}")
    return text


def peers(raw: object) -> Mapping[str, tuple[str, ...]]:
    """App ID → addresses (host:port), read-only.

    From `{app: address or list of addresses}`, or from the flag's form: items `app=address`, in a list or
    separated by commas, where an item without `app=` is a further address of the app before it.
    """
    found: dict[str, list[str]] = {}
    spelling: dict[str, str] = {}
    for app, address in _peer_pairs(raw):
        first = spelling.setdefault(app.lower(), app)
        if first != app:
            raise ValueError(f"{first!r} and {app!r} differ only in case: keep one of them")
        try:
            found.setdefault(app, []).append(_address(address))
        except ValueError as error:
            raise ValueError(f"{app}: {error}") from None
    return MappingProxyType({app: tuple(dict.fromkeys(addresses)) for app, addresses in found.items()})


def peer_pattern(raw: object) -> str:
    """An address in which {app}, and {namespace} if wanted, stand for those of a peer; "" for none."""
    if raw in ("", "none"):
        return ""
    text = raw if isinstance(raw, str) else ""
    try:
        _address(text.replace("{app}", "app").replace("{namespace}", "namespace"))
    except ValueError:
        text = ""
    if "{app}" not in text:
        raise ValueError(f"{quoted(raw)} is not a pattern of addresses: write such as {{app}}-sidecar:50002")
    return text


def off_loopback(found: Mapping[str, tuple[str, ...]]) -> str | None:
    """The first of these addresses of peers that leads to another machine, as app=host:port; None if none does."""
    leading = (f"{app}={address}" for app, many in found.items() for address in many if not _stays(address))
    return next(leading, None)


def _stays(address: str) -> bool:
    return is_loopback(address.rpartition(":")[0].strip("[]"))


def is_loopback(host: str) -> bool:
    """Whether what listens there, or is dialled there, is on this machine and reached by it alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _peer_pairs(raw: object) -> Iterable[tuple[str, object]]:
    if isinstance(raw, Mapping):
        for key, addresses in raw.items():
            app = app_id(key)
            yield from ((app, address) for address in items(addresses) or [None])
        return
    app = ""
    for item in items(raw):
        name, equals, address = item.partition("=") if isinstance(item, str) else ("", "", "")
        if equals:
            app = app_id(name.strip())
        elif not app:
            raise ValueError(f"{quoted(item)} names no app: write app=host:port, such as ml=127.0.0.1:50012")
        yield app, address.strip() if equals else item


def _address(raw: object) -> str:
    match = _ADDRESS.fullmatch(raw) if isinstance(raw, str) else None
    if match is None:
        raise ValueError(f"{quoted(raw)} is not an address: {_ADDRESS_EXAMPLE}")
    name, number = match[1], int(match[2])
    try:
        bracketed = ":" in host(name)
    except ValueError:
        raise ValueError(f"{quoted(raw)} is not an address: {_ADDRESS_EXAMPLE}") from None
    if not 1 <= number <= _MAX_PORT or bracketed != name.startswith("["):
        raise ValueError(f"{quoted(raw)} is not an address: {_ADDRESS_EXAMPLE}, port 1 to {_MAX_PORT}")
    return f"{name}:{number}"
