"""The variables by which an app finds its sidecar."""

from pathlib import Path

from sidecar.config.app_environment import variables
from sidecar.config.settings import Settings

PLAIN = Settings(app_id="orders", grpc_port=(50011, 4011), http_port=3510)


def test_an_app_is_told_its_name_and_where_its_sidecar_listens() -> None:
    assert variables(PLAIN, token="") == {
        "APP_ID": "orders",
        "DAPR_GRPC_ENDPOINT": "http://127.0.0.1:50011",
        "DAPR_GRPC_PORT": "50011",
        "DAPR_HTTP_ENDPOINT": "http://127.0.0.1:3510",
        "DAPR_HTTP_PORT": "3510",
    }


def test_it_is_told_a_token_and_its_own_port_if_there_are_any() -> None:
    found = variables(PLAIN, token="secret", app_port=8080)
    assert (found["DAPR_API_TOKEN"], found["APP_PORT"]) == ("secret", "8080")


def test_with_a_certificate_the_sdk_is_told_to_speak_tls() -> None:
    settings = Settings(app_id="orders", listen_host="::1", app_cert=Path("a.crt"), app_key=Path("a.key"))
    found = variables(settings, token="")
    assert found["DAPR_GRPC_ENDPOINT"] == "https://[::1]:50001"
    assert found["DAPR_HTTP_ENDPOINT"] == "http://[::1]:3500"


def test_what_listens_everywhere_is_found_on_loopback() -> None:
    found = variables(Settings(app_id="orders", listen_host="0.0.0.0", insecure_listen=True), token="")  # noqa: S104
    assert found["DAPR_GRPC_ENDPOINT"] == "http://127.0.0.1:50001"
