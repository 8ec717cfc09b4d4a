"""Certificates for tests, created with the `openssl` command."""

import atexit
import functools
import shutil
import ssl
import subprocess
import tempfile
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
policy = any
unique_subject = no
[any]
commonName = supplied
"""
_KEYS = {
    "ec": ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "rsa": ("-newkey", "rsa:2048"),
    "rsa1024": ("-newkey", "rsa:1024"),
}


@dataclass(frozen=True)
class Identity:
    """A certificate and its private key."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority; `identity` is its own, self-signed certificate."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self.folder = folder / name
        self.folder.mkdir()
        self.certificate = self.folder / "certificate"
        self.identity = Identity(self.certificate, self.folder / "key")
        for file, text in (("config", _CONFIG), ("index", ""), ("serial", "01\n")):
            (self.folder / file).write_text(text)
        output = ("-subj", f"/CN={name}", "-nodes", "-keyout", "key", "-out", "certificate")
        usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
        openssl("req", "-x509", *_KEYS["ec"], *output, *usage, cwd=self.folder)

    def issue(
        self, name: str, *, sans: str = "", usage: str = "", key: str = "ec",
        since: int = 2020, until: int = 2040,
    ) -> Identity:  # fmt: skip
        """Issue a certificate that is valid from the start of one year to the start of another."""
        identity = Identity(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        subject = ("-subj", f"/CN={name}", "-nodes", "-keyout", str(identity.key))
        openssl("req", *_KEYS[key], *subject, "-out", "request", cwd=self.folder)
        extensions = {"subjectAltName": sans, "extendedKeyUsage": usage}
        lines = [f"{name} = {value}\n" for name, value in extensions.items() if value]
        (self.folder / "extensions").write_text("authorityKeyIdentifier = keyid\n" + "".join(lines))
        validity = ("-startdate", f"{since}0101000000Z", "-enddate", f"{until}0101000000Z")
        files = ("-in", "request", "-out", str(identity.certificate), "-extfile", "extensions")
        options = ("-batch", "-config", "config", "-notext", "-md", "sha256")
        openssl("ca", *options, *files, *validity, cwd=self.folder)
        return identity


@functools.cache
def shared_authority(name: str = "authority") -> Authority:
    """Return an authority that all tests of a process share."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    return Authority(folder, name)


def server_context(identity: Identity) -> ssl.SSLContext:
    """Return the context of a server that accepts even weak certificates and ciphers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(identity.certificate, identity.key)
    return context


def client_context(identity: Identity | None = None) -> ssl.SSLContext:
    """Return the context of a client that trusts only the shared authority."""
    context = ssl.create_default_context(cafile=str(shared_authority().certificate))
    if identity:
        context.load_cert_chain(identity.certificate, identity.key)
    return context


def openssl(*arguments: str, cwd: Path) -> None:
    """Run the command; fails the test if the command fails."""
    done = subprocess.run(["openssl", *arguments], capture_output=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stderr.decode()
