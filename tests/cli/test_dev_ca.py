"""`sidecar dev-ca`."""

import ssl
from contextlib import suppress
from pathlib import Path

import pytest

from sidecar.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main.main(["dev-ca", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_it_makes_a_ca_and_a_certificate_an_app(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "a" / "b"
    code, out, _ = run(capsys, "--out", str(directory), "orders", "ml")
    names = {"ca.crt", "ca.key", "orders.crt", "orders.key", "ml.crt", "ml.key"}
    assert (code, {Path(line).name for line in out.splitlines()}) == (0, names)
    assert {file.name for file in directory.iterdir()} == names
    for key in directory.glob("*.key"):
        assert key.stat().st_mode & 0o777 == 0o600


def test_a_ca_that_is_there_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "--out", str(tmp_path), "orders")
    ca = (tmp_path / "ca.crt").read_bytes()
    code, out, _ = run(capsys, "--out", str(tmp_path), "ml")
    assert (code, (tmp_path / "ca.crt").read_bytes()) == (0, ca)
    assert "ca." not in out


def test_a_ca_that_cannot_be_used_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ca.crt").write_text("x")
    code, _, err = run(capsys, "--out", str(tmp_path), "orders")
    assert code == 2
    assert "are no CA that can be used" in err
    assert "remove both" in err


@pytest.mark.parametrize("wrong", [["no app"], ["a", "--namespace", "x y"], ["a", "--trust-domain", "X"]])
def test_names_that_cannot_exist_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: list[str]
) -> None:
    code, _, err = run(capsys, "--out", str(tmp_path), *wrong)
    assert code == 2
    assert err.startswith("sidecar: ")
    assert not list(tmp_path.iterdir())


def test_a_client_that_looks_closely_takes_the_certificates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As every program in Python from 3.13 on does, by its defaults."""
    run(capsys, "--out", str(tmp_path), "orders")
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(tmp_path / "orders.crt", tmp_path / "orders.key")
    theirs = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    theirs.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = theirs.wrap_bio(to_client, to_server, server_hostname="localhost")
    server = ours.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client, server):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    assert client.getpeercert()
