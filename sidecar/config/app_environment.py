"""The variables by which an app finds the sidecar beside it, under the names that SDKs look for."""

from sidecar.config.own_address import in_address, reached
from sidecar.config.settings import Settings


def variables(settings: Settings, *, token: str, app_port: int | None = None) -> dict[str, str]:
    """Return the variables for an app whose sidecar has these settings, with real ports.

    Dapr's SDKs read the endpoints first, then the ports; older ones know only ports. `token` is what callers show, ""
    for none. `app_port` is where the app itself listens, for apps that are told so.
    """
    at = in_address(reached(settings.listen_host))
    scheme = "http" if settings.app_cert is None else "https"
    found = {
        "APP_ID": settings.app_id,
        "DAPR_GRPC_ENDPOINT": f"{scheme}://{at}:{settings.grpc_port[0]}",
        "DAPR_GRPC_PORT": str(settings.grpc_port[0]),
        "DAPR_HTTP_ENDPOINT": f"http://{at}:{settings.http_port}",
        "DAPR_HTTP_PORT": str(settings.http_port),
    }
    if app_port is not None:
        found["APP_PORT"] = str(app_port)
    if token:
        found["DAPR_API_TOKEN"] = token
    return found
