"""TLS on the app's ports."""

from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from sidecar.cli import dev_ca
from tests.blackbox.harness import App, Sidecar, until
from tests.blackbox.wire import SERVICE


@pytest.fixture
def certs(tmp_path: Path, own_sidecar: Sidecar) -> Path:
    directory = tmp_path / "certs"
    dev_ca.issue(directory, ["orders"], "default", "sidecar.local", 1)
    own_sidecar.options = ["--app-cert", str(directory / "orders.crt"), "--app-key", str(directory / "orders.key")]
    return directory


def hello(port: int, credentials: grpc.ChannelCredentials | None) -> str:
    """How a call over a connection of its own ends."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    target = f"localhost:{port}"
    channel = (
        grpc.insecure_channel(target, options)
        if credentials is None
        else grpc.secure_channel(target, credentials, options)
    )
    with channel:
        try:
            channel.unary_unary(SERVICE + "Hello")(b"", timeout=5)
        except grpc.RpcError as error:
            return error.code().name
    return "OK"


def trusting(certs: Path) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials((certs / "ca.crt").read_bytes())


def test_an_sdk_that_speaks_tls_works(own_sidecar: Sidecar, certs: Path, start_app: Callable[..., App]) -> None:
    own_sidecar.start()
    environment = {"APP_TLS": "yes", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(certs / "ca.crt")}
    app = start_app("microsoft", own_sidecar, environment=environment)
    assert app.run("hello", "there") is not None


@pytest.mark.fault(41, "With TLS nobody is served in plaintext, or believes another CA")
def test_nobody_is_served_in_plaintext_or_trusts_another_ca(own_sidecar: Sidecar, certs: Path, tmp_path: Path) -> None:
    own_sidecar.start()
    assert hello(own_sidecar.port, None) == "UNAVAILABLE"
    dev_ca.issue(tmp_path / "other", ["orders"], "default", "sidecar.local", 1)
    assert hello(own_sidecar.port, trusting(tmp_path / "other")) == "UNAVAILABLE"
    assert hello(own_sidecar.port, trusting(certs)) == "OK"


@pytest.mark.fault(41, "A renewed certificate of the app's ports is taken up without a restart")
def test_a_new_certificate_is_taken_up_without_a_restart(own_sidecar: Sidecar, certs: Path, tmp_path: Path) -> None:
    own_sidecar.start()
    other = tmp_path / "other"
    dev_ca.issue(other, ["orders"], "default", "sidecar.local", 1)
    for name in ("orders.key", "orders.crt"):
        (other / name).replace(certs / name)
    until(lambda: hello(own_sidecar.port, trusting(other)) == "OK", what="the new certificate is in force")
    assert hello(own_sidecar.port, trusting(certs)) == "UNAVAILABLE"


def test_a_certificate_without_its_key_ends_the_start_in_one_line(own_sidecar: Sidecar, certs: Path) -> None:
    dev_ca.issue(certs, ["ml"], "default", "sidecar.local", 1)
    own_sidecar.options[-1] = str(certs / "ml.key")
    ended = own_sidecar.run_command()
    assert ended.returncode == 2
    assert "is not the key of" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
