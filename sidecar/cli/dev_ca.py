"""Certificates for development: a CA, and a certificate for each app that it signs."""

import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sidecar.actors.clock import Clock
from sidecar.config.settings import StartError
from sidecar.edge.security.certificates import dns_name, spiffe_id
from sidecar.edge.transport.listening import LOOPBACK

CA_CERTIFICATE, CA_KEY = "ca.crt", "ca.key"
_CA_DAYS = 3650
_CLOCK_SKEW = timedelta(minutes=5)
_SIGNS = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


def issue(directory: Path, apps: list[str], namespace: str, trust_domain: str, days: int) -> list[Path]:
    """Write `<app>.crt` and `<app>.key` for each app, and `ca.crt` and `ca.key` unless they are there.

    Returns the files that were written. Keys can be read by their owner alone.

    Raises:
        StartError: the directory cannot be written, or its CA cannot be used.
    """
    now = datetime.fromtimestamp(Clock().now() / 1e6, UTC)
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        written, ca, ca_key = _authority(directory, trust_domain, now)
        for app in apps:
            key = ec.generate_private_key(ec.SECP256R1())
            names = [
                x509.UniformResourceIdentifier(spiffe_id(trust_domain, namespace, app)),
                x509.DNSName(dns_name(namespace, app)),
                x509.DNSName("localhost"),  # so that it serves for the app's own ports too
                *(x509.IPAddress(ipaddress.ip_address(address)) for address in LOOPBACK),
            ]
            builder = _builder(app, ca.subject, key, now, days)
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
            builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
            builder = builder.add_extension(issuer, critical=False)
            written += _write(directory, app, builder.sign(ca_key, hashes.SHA256()), key)
    except OSError as error:
        raise StartError(f"cannot write {directory}: {error.strerror or error}") from error
    return written


def _authority(
    directory: Path, trust_domain: str, now: datetime
) -> tuple[list[Path], x509.Certificate, ec.EllipticCurvePrivateKey]:
    certificate, key_file = directory / CA_CERTIFICATE, directory / CA_KEY
    if certificate.exists() or key_file.exists():
        return [], *_existing(certificate, key_file)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"sidecar development CA of {trust_domain}"[:64])])
    builder = _builder("", name, key, now, _CA_DAYS).subject_name(name)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    # RFC 5280 asks for these, and so does Python from 3.13 on.
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    ca = builder.add_extension(_SIGNS, critical=True).sign(key, hashes.SHA256())
    return _write(directory, "ca", ca, key), ca, key


def _existing(certificate: Path, key_file: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        ca = x509.load_pem_x509_certificate(certificate.read_bytes())
        key = serialization.load_pem_private_key(key_file.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        hint = "remove both to make a new CA; certificates of the old one are then refused"
        raise StartError(f"{certificate} and {key_file} are no CA that can be used ({error}): {hint}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != ca.public_key():
        raise StartError(f"{key_file} is not the key of {certificate}")
    return ca, key


def _builder(
    app: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - _CLOCK_SKEW).not_valid_after(now + timedelta(days=days))
    if app:
        builder = builder.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, app)]))
    return builder


def _write(directory: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> list[Path]:
    files = directory / f"{name}.crt", directory / f"{name}.key"
    form = serialization.PrivateFormat.PKCS8
    private = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    for file, content, mode in (
        (files[1], private, 0o600),
        (files[0], certificate.public_bytes(serialization.Encoding.PEM), 0o644),
    ):
        # A reader sees the old file or the new one, never half of one.
        fresh = file.with_suffix(f"{file.suffix}.new")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as out:
            out.write(content)
        fresh.replace(file)
    return list(files)
