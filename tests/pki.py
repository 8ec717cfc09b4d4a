"""Certificates for tests, created with the `openssl` command."""

import atexit
import functools
import shutil
import ssl
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

_CONFIG = """
[this]
database = index
serial = serial
unique_subject = no
policy = any
[any]
commonName = supplied
"""
_KEYS = {"ec": "ec -pkeyopt ec_paramgen_curve:P-256", "rsa": "rsa:2048", "rsa1024": "rsa:1024"}


class Identity(NamedTuple):
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
        usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
        self._request("ec", name, "key", "-x509", "-out", "certificate", *usage)

    def _request(self, key: str, name: str, file: str, *options: str) -> None:
        subject = ("-subj", f"/CN={name}", "-nodes", "-keyout", file)
        openssl("req", "-newkey", *_KEYS[key].split(), *subject, *options, cwd=self.folder)

    def issue(
        self, name: str, *, sans: str = "", usage: str = "", key: str = "ec",
        since: int = 2020, until: int = 2040,
    ) -> Identity:  # fmt: skip
        """Issue a certificate that is valid from the start of one year to the start of another."""
        self._request(key, name, f"{name}.key", "-out", "request")
        extensions = "authorityKeyIdentifier = keyid\n"
        extensions += f"subjectAltName = {sans}\n" if sans else ""
        extensions += f"extendedKeyUsage = {usage}\n" if usage else ""
        (self.folder / "extensions").write_text(extensions)
        validity = ("-startdate", f"{since}0101000000Z", "-enddate", f"{until}0101000000Z")
        signer = ("-config", "config", "-name", "this", "-cert", "certificate", "-keyfile", "key")
        files = ("-in", "request", "-out", f"{name}.crt", "-extfile", "extensions")
        options = ("-batch", "-notext", "-md", "sha256", "-outdir", ".")
        openssl("ca", *options, *signer, *files, *validity, cwd=self.folder)
        return Identity(self.folder / f"{name}.crt", self.folder / f"{name}.key")


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
    subprocess.run(["openssl", *arguments], stderr=subprocess.PIPE, check=True, cwd=cwd)
