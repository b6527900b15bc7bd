"""The keys and certificates of a control plane that lives for one test run."""

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID = datetime.timedelta(days=7)
# A clock that jumps back a little, as those of virtual machines do, must not make a certificate invalid.
CLOCK_SKEW = datetime.timedelta(hours=1)


class Authority:
    """A certificate authority: its certificate is ``<name>.crt`` in ``folder``, and what it issues lies beside it."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder = folder
        self._key = write_key(folder / f"{name}.key")
        self.certificate = folder / f"{name}.crt"
        self.key = folder / f"{name}.key"
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"inferno-tests-{name}")])
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        builder = self._builder(self._name, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self._sign(builder.add_extension(usage, critical=True), self.certificate)

    def issue(self, name: str, user: str, groups: Sequence[str] = (), hosts: Sequence[str] = ()) -> tuple[Path, Path]:
        """Writes ``<name>.crt`` and ``<name>.key``, and returns their paths.

        To Kubernetes the holder is ``user``, of ``groups``. With ``hosts``, names and addresses, it may serve at these.
        """
        subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject.append(x509.NameAttribute(NameOID.COMMON_NAME, user))
        key_path, certificate_path = self.folder / f"{name}.key", self.folder / f"{name}.crt"
        builder = self._builder(x509.Name(subject), write_key(key_path))
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH] + ([ExtendedKeyUsageOID.SERVER_AUTH] if hosts else [])
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if hosts:
            names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        self._sign(builder, certificate_path)
        return certificate_path, key_path

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(
            issuer_name=self._name,
            subject_name=subject,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - CLOCK_SKEW,
            not_valid_after=now + VALID,
        )
        # Python 3.13 and later refuse a chain without these two.
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(issuer, critical=False)
        return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)

    def _sign(self, builder: x509.CertificateBuilder, path: Path) -> None:
        path.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def write_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Makes a private key and writes it to ``path``, readable by its owner alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    # Of the PEM forms, kube-apiserver finds the public half, to check tokens with, in this one alone.
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(*form))
    return key


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
