"""Who a peer is, proved by its certificate: real sidecars with certificates of `dev-ca`, and those who cheat."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sidecar.cli import dev_ca
from sidecar.config.settings import StartError
from sidecar.edge.grpc_aio.channel import GrpcChannel
from sidecar.edge.grpc_aio.server import GrpcServer
from sidecar.edge.peer import hellos, link
from sidecar.edge.security import certificates
from sidecar.edge.security.certificates import Certificates, Files
from sidecar.edge.transport.ports import Call, Closed, Handlers, Outflow, Refused, Tls
from sidecar.schema import peer_pb2
from sidecar.schema import taskhub_pb2 as pb
from tests.inprocess.sidecars import Node, Start, hello
from tests.inprocess.world import COMPLETED, call, end, until

DOMAIN = "sidecar.local"


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    directory = tmp_path / "certs"
    dev_ca.issue(directory, ["orders", "ml", "evil"], "default", DOMAIN, 1)
    return directory


def given(certs: Path, app: str) -> dict[str, Path]:
    return {"peer_cert": certs / f"{app}.crt", "peer_key": certs / f"{app}.key", "peer_ca": certs / "ca.crt"}


def tls(certs: Path, app: str, ca: Path | None = None) -> Tls:
    files = given(certs, app)
    root = files["peer_ca"] if ca is None else ca
    return Tls(files["peer_cert"].read_bytes(), files["peer_key"].read_bytes(), root.read_bytes())


@pytest.fixture
def start(start: Start, certs: Path) -> Start:
    """Starts sidecars, each with its certificate."""
    return lambda app_id, **settings: start(app_id, **(given(certs, app_id) | settings))


async def introduce(node: Node, frame: peer_pb2.Frame, credentials: Tls | None) -> peer_pb2.Frame | None:
    """The answer to a hello over a connection with this certificate; None when there is no connection to speak of."""
    channel = GrpcChannel(node.peer_address, tls=credentials, name="ml.default")
    stream = channel.duplex(link.METHOD)
    try:
        async with asyncio.timeout(5.0):
            await stream.send(frame.SerializeToString())
            message = await stream.receive()
            return None if message is None else peer_pb2.Frame.FromString(message)
    except (Closed, Refused):
        return None
    finally:
        stream.cancel()
        await channel.close()


def asks(events: list[pb.HistoryEvent]) -> list[pb.Action]:
    results = [event.task_completed.result.value for event in events if event.HasField("task_completed")]
    return [end(results[0])] if results else [call(1, "score", app="ml")]


async def test_certified_sidecars_work_together(start: Start) -> None:
    ml = await start("ml")
    orders = await start("orders", peers={"ml": (ml.peer_address,)})
    orders.worker(asks)
    ml.worker(activities={"score": lambda request: '"7"'})
    await orders.begin("a")
    state = await orders.outcome("a")
    assert (state.status, state.output.value) == (COMPLETED, '"7"')


async def test_a_peer_without_a_certificate_reaches_nothing(start: Start) -> None:
    """M81"""
    ml = await start("ml")
    assert await introduce(ml, hello("orders"), None) is None


async def test_a_certificate_of_another_ca_reaches_nothing(start: Start, tmp_path: Path, certs: Path) -> None:
    """M81"""
    ml = await start("ml")
    other = tmp_path / "other"
    dev_ca.issue(other, ["orders"], "default", DOMAIN, 1)
    assert await introduce(ml, hello("orders"), tls(other, "orders", certs / "ca.crt")) is None


@pytest.mark.fault(23, "A peer speaks only as the app that its certificate names")
async def test_a_peer_cannot_speak_as_another_app_than_its_certificate_says(start: Start, certs: Path) -> None:
    """M9, M81"""
    ml = await start("ml")
    answer = await introduce(ml, hello("orders"), tls(certs, "evil"))
    assert answer is not None
    assert answer.refused == "the certificate is not that of app 'orders'"
    answer = await introduce(ml, hello("orders"), tls(certs, "orders"))
    assert answer is not None
    assert answer.WhichOneof("frame") == "hello"


@pytest.mark.parametrize(("namespace", "domain"), [("elsewhere", DOMAIN), ("default", "other.domain")])
async def test_the_namespace_and_trust_domain_of_a_certificate_count(
    start: Start, certs: Path, namespace: str, domain: str
) -> None:
    """M16, M81: nothing is read of one who is nobody here."""
    ml = await start("ml")
    dev_ca.issue(certs, ["orders"], namespace, domain, 1)
    with pytest.raises(Refused, match="PERMISSION_DENIED: the certificate names no app of namespace 'default'"):
        await silent(ml, tls(certs, "orders"))


async def test_one_who_is_nobody_there_sees_why_no_link_comes_up(start: Start, certs: Path) -> None:
    ml = await start("ml", trust_domain="other.domain", **issued(certs, "ml", "other.domain"))
    orders = await start("orders", peers={"ml": (ml.peer_address,)})
    why = f"{ml.peer_address}: the certificate names no app of namespace 'default' in this trust domain"
    await until(lambda: [state.error for state in orders.sidecar.peers.states()] == [why])


def issued(certs: Path, app: str, domain: str) -> dict[str, Path]:
    dev_ca.issue(certs, [app], "default", domain, 1)
    return given(certs, app)


async def silent(node: Node, credentials: Tls) -> None:
    """Begin a link and say nothing. Raises TimeoutError if the other side waits for more."""
    channel = GrpcChannel(node.peer_address, tls=credentials, name="ml.default")
    stream = channel.duplex(link.METHOD)
    try:
        async with asyncio.timeout(3.0):
            await stream.receive()
    finally:
        stream.cancel()
        await channel.close()


async def test_links_that_an_app_begins_at_once_are_limited_and_other_apps_are_let_in(
    start: Start, certs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each hello may be as large as any message."""
    monkeypatch.setattr(hellos, "MOST", 2)
    ml = await start("ml")
    held = [asyncio.create_task(silent(ml, tls(certs, "evil"))) for _ in range(2)]
    await until(lambda: ml.sidecar.peers._hellos.reading["evil"] == 2)
    with pytest.raises(Refused, match="RESOURCE_EXHAUSTED: 2 links of app 'evil' begin already"):
        await silent(ml, tls(certs, "evil"))
    answer = await introduce(ml, hello("orders"), tls(certs, "orders"))
    assert answer is not None
    assert answer.WhichOneof("frame") == "hello"
    await asyncio.gather(*held, return_exceptions=True)
    await until(lambda: not ml.sidecar.peers._hellos.reading["evil"])


def certified(certs: Path, file: str, names: list[x509.GeneralName]) -> Tls:
    """A certificate of the deployment's CA with these names alone."""
    ca = x509.load_pem_x509_certificate((certs / "ca.crt").read_bytes())
    ca_key = serialization.load_pem_private_key((certs / "ca.key").read_bytes(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder().issuer_name(ca.subject).subject_name(x509.Name([])).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(ca.not_valid_before_utc).not_valid_after(ca.not_valid_after_utc)
    signed = builder.add_extension(x509.SubjectAlternativeName(names), critical=False).sign(ca_key, hashes.SHA256())
    form = serialization.PrivateFormat.PKCS8
    private = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    pem = signed.public_bytes(serialization.Encoding.PEM)
    (certs / f"{file}.crt").write_bytes(pem)
    (certs / f"{file}.key").write_bytes(private)
    return Tls(pem, private, (certs / "ca.crt").read_bytes())


URI, DNS = x509.UniformResourceIdentifier, x509.DNSName
ID, HOST = "spiffe://sidecar.local/ns/default/orders", "orders.default"
DISGUISED = {
    "both as DNS names": [DNS(ID), DNS(HOST)],
    "both as URIs": [URI(ID), URI(HOST)],
    "each as the other": [DNS(ID), URI(HOST)],
    "the URI alone": [URI(ID)],
    "the DNS name alone": [DNS(HOST)],
}


@pytest.mark.parametrize("how", DISGUISED)
async def test_a_name_of_one_kind_is_no_proof_of_another(start: Start, certs: Path, how: str) -> None:
    """M81: not for a peer that connects, and not for the own certificate at the start."""
    ml = await start("ml")
    names: list[x509.GeneralName] = [*DISGUISED[how]]
    with pytest.raises(Refused, match="PERMISSION_DENIED"):
        await silent(ml, certified(certs, "orders", names))
    with pytest.raises(StartError, match="does not name this app: "):
        await start("orders")


async def test_both_names_as_what_they_are_prove_the_app(start: Start, certs: Path) -> None:
    ml = await start("ml")
    answer = await introduce(ml, hello("orders"), certified(certs, "orders", [DNS(HOST), URI(ID), DNS("other")]))
    assert answer is not None
    assert answer.WhichOneof("frame") == "hello"


def test_a_pair_that_was_torn_when_it_was_read_is_read_again_though_its_stamp_is_the_same(certs: Path) -> None:
    """Key and certificate are written one after the other, and a clock of files may stand still meanwhile."""
    names = certificates.names(DOMAIN, "default", "ml")
    held = Certificates(Files(certs / "ml.crt", certs / "ml.key", certs / "ca.crt"), names)
    before = held.pem()
    new = certified(certs, "new", [URI("spiffe://sidecar.local/ns/default/ml"), DNS("ml.default")])
    for file, content in (("ml.key", new.key), ("ml.crt", new.certificate)):
        (certs / file).write_bytes(content)
        for each in ("ml.key", "ml.crt"):
            os.utime(certs / each, ns=(0, 0))
        assert held.pem() == (before if file == "ml.key" else new)


async def test_nothing_is_said_to_a_server_that_is_not_the_app_at_that_address(start: Start, certs: Path) -> None:
    heard: list[bytes] = []

    async def listen(call_: Call, requests: AsyncIterator[bytes], out: Outflow) -> None:
        async for message in requests:
            heard.append(message)

    impostor = GrpcServer(Handlers(duplex={link.METHOD: listen}))
    port = await impostor.listen("127.0.0.1", 0, lambda: tls(certs, "evil"))
    await impostor.start()
    orders = await start("orders", peers={"ml": (f"127.0.0.1:{port}",)})
    orders.worker(asks)
    await orders.begin("a")
    await asyncio.sleep(0.5)
    assert not heard
    await impostor.stop(0.0)


@pytest.mark.fault(41, "A renewed certificate is taken up without a restart")
async def test_a_certificate_is_renewed_without_a_restart(start: Start, certs: Path) -> None:
    ml = await start("ml")
    before = (certs / "ml.crt").read_bytes()
    dev_ca.issue(certs, ["ml"], "default", DOMAIN, 1)
    assert (certs / "ml.crt").read_bytes() != before
    os.utime(certs / "ml.crt")
    assert await introduce(ml, hello("orders"), tls(certs, "orders")) is not None
    held = ml.sidecar.trust.peer
    assert held is not None
    assert held.pem().certificate == (certs / "ml.crt").read_bytes()


async def test_files_that_have_become_wrong_change_nothing(start: Start, certs: Path) -> None:
    ml = await start("ml")
    (certs / "ml.crt").write_text("half a certif")
    assert await introduce(ml, hello("orders"), tls(certs, "orders")) is not None


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("ml.crt", "nonsense", "ml.crt: no certificate in PEM"),
        ("ml.key", "nonsense", "ml.key: no private key in PEM"),
        ("ca.crt", "nonsense", "ca.crt: no certificate in PEM"),
        ("ml.crt", None, "cannot read"),
        ("ml.key", "orders.key", "is not the key of"),
    ],
)
async def test_a_start_with_wrong_files_says_which_and_why(
    start: Start, certs: Path, file: str, content: str | None, reason: str
) -> None:
    if content is None:
        (certs / file).unlink()
    else:
        text = (certs / content).read_text() if content.endswith(".key") else content
        (certs / file).write_text(text)
    with pytest.raises(StartError, match=reason):
        await start("ml")


async def test_a_start_with_another_apps_certificate_names_what_is_missing(start: Start, certs: Path) -> None:
    with pytest.raises(StartError, match=r"ml\.default and spiffe://sidecar\.local/ns/default/ml"):
        await start("ml", **given(certs, "orders"))


async def test_a_certificate_that_ends_soon_is_said_once(start: Start, certs: Path) -> None:
    ml = await start("ml")
    held = ml.sidecar.trust.peer
    assert held is not None
    await until(lambda: True)
    assert not held._warned

    class Late:
        naps = 0

        def now(self) -> int:
            return int((held.files.look().ends.timestamp() - 3600) * 1e6)

        async def sleep(self, seconds: float) -> None:
            self.naps += 1
            if self.naps == 2:
                raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await held.watch(Late())  # type: ignore[arg-type]
    assert held._warned
