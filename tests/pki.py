"""Certificates made on the spot, with the `openssl` command."""

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

_CONFIG = """
[ca]
default_ca = this
[this]
database = index
serial = serial
new_certs_dir = .
certificate = certificate
private_key = key
default_md = sha256
default_crl_days = 30
policy = any
unique_subject = no
[any]
commonName = supplied
"""
KEYS = {
    "ec": ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "rsa": ("-newkey", "rsa:2048"),
    "weak": ("-newkey", "rsa:1024"),
    "odd": ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"),
}


@dataclass(frozen=True)
class Identity:
    """A certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """Somebody who signs certificates, and takes them back."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder / name
        self.folder.mkdir()
        (self.folder / "config").write_text(_CONFIG)
        (self.folder / "index").touch()
        (self.folder / "serial").write_text("01\n")
        made = ("-subj", f"/CN={name}", "-nodes", "-keyout", "key", "-out", "certificate")
        self._openssl("req", "-x509", *KEYS["ec"], *made, "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        self.certificate = self.folder / "certificate"

    def issue(
        self,
        name: str,
        *,
        sans: str = "",
        usage: str = "",
        key: str = "ec",
        since: str = "2020",
        until: str = "2040",
        digest: str = "sha256",
    ) -> Identity:
        """Sign a certificate that is valid between the first seconds of two years."""
        made = Identity(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        named = ("-subj", f"/CN={name}", "-nodes", "-keyout", str(made.key), "-out", "request")
        self._openssl("req", *KEYS[key], *named)
        lines = (f"subjectAltName = {sans}" if sans else "", f"extendedKeyUsage = {usage}" if usage else "")
        (self.folder / "extensions").write_text("authorityKeyIdentifier = keyid\n" + "\n".join(lines))
        valid = ("-startdate", f"{since}0101000000Z", "-enddate", f"{until}0101000000Z")
        self._ca(
            "-in", "request", "-out", str(made.certificate), "-extfile", "extensions", "-notext", "-md", digest, *valid
        )
        return made

    def revoked(self, *identities: Identity) -> str:
        """Take certificates back; return the list of those that were."""
        for identity in identities:
            self._ca("-revoke", str(identity.certificate))
        self._ca("-gencrl", "-out", "revoked")
        return (self.folder / "revoked").read_text()

    def _ca(self, *arguments: str) -> None:
        self._openssl("ca", "-batch", "-config", "config", *arguments)

    def _openssl(self, *arguments: str) -> None:
        openssl(*arguments, cwd=self.folder)


def serves(identity: Identity) -> ssl.SSLContext:
    """Return what a server shows it with, however weak it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(identity.certificate, identity.key)
    return context


def trusts(authority: Authority) -> ssl.SSLContext:
    """Return how a client looks at servers that trusts this authority alone."""
    return ssl.create_default_context(cafile=str(authority.certificate))


def openssl(*arguments: str, cwd: Path) -> None:
    """Run the command; a failure is a failure of the test."""
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stderr
