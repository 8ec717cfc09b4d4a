"""Web configuration file: TLS and basic authentication.

The format is that of Prometheus' exporter-toolkit:
https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md
"""

import re
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import AfterValidator, Field, ValidationInfo

from exporter import files, yaml_file
from exporter.errors import SettingsError

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""TLS 1.2 cipher suites with forward secrecy and authenticated encryption."""
CURVE = "prime256v1"
"""The only group for key exchange. A group of finite-field Diffie-Hellman takes a hundred times the
computing time; before Python 3.15, only a single curve can be set; every client supports this."""
_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_VERIFY_MODES = {
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_HASH = re.compile(r"\$2[aby]\$1[0-4]\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{30}[.CGKOSWaeimquy26]")

Stamp = tuple[int, int, int] | None
"""Modification time in Unix nanoseconds, size and inode of a file; `None` if there is none."""


def _file(name: Path, info: ValidationInfo[Path]) -> Path:
    path = (info.context or Path()) / name
    try:
        files.read(path)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    return path


def _bcrypt_hash(text: str) -> str:
    if not _HASH.fullmatch(text):
        raise ValueError("must be a bcrypt hash of cost 10 to 14; use `htpasswd -nBC 10 USER`")
    return text


_File = Annotated[Path, Field(strict=False), AfterValidator(_file)]
_Version = Literal["TLS12", "TLS13"]
_HEADERS = "Content-Security-Policy|Strict-Transport-Security|X-(Content-Type|Frame)-Options"
_HeaderName = Annotated[str, Field(pattern=f"^({_HEADERS}|X-XSS-Protection)$")]
_Header = Annotated[str, Field(pattern="^[ -~]*$")]
_User = Annotated[str, Field(pattern=r"^[^:\x00-\x1f\x7f]+$")]
_Hash = Annotated[str, AfterValidator(_bcrypt_hash)]


class _Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True)


class TlsServerConfig(_Model):
    """TLS and client certificates; the files are readable."""

    cert_file: _File
    key_file: _File
    client_ca_file: _File | None = None
    client_auth_type: Literal[
        "NoClientCert", "RequestClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"
    ] = "NoClientCert"
    client_allowed_sans: Annotated[list[str], Field(min_length=1)] | None = None
    min_version: _Version = "TLS12"
    max_version: _Version = "TLS13"

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "TlsServerConfig":
        required = "RequireAndVerifyClientCert"
        if (self.client_auth_type in _VERIFY_MODES) != bool(self.client_ca_file):
            raise ValueError(f"client_ca_file requires client_auth_type: {required}, or vice versa")
        if self.client_allowed_sans and self.client_auth_type != required:
            raise ValueError(f"client_allowed_sans requires client_auth_type: {required}")
        return self


class HttpServerConfig(_Model):
    """HTTP; `http2` is ignored, because the server speaks HTTP/1.1."""

    http2: bool = True
    headers: dict[_HeaderName, _Header] = {}


class WebConfigFile(_Model):
    """Content of the file."""

    tls_server_config: TlsServerConfig | None = None
    http_server_config: HttpServerConfig = HttpServerConfig()
    basic_auth_users: dict[_User, _Hash] = {}

    @pydantic.field_validator("tls_server_config", mode="before")
    @classmethod
    def _not_empty(cls, value: object) -> object:
        if value is None:  # would be plain HTTP
            raise ValueError("is empty; remove it for plain HTTP")
        return value


_KEYS = {*WebConfigFile.model_fields, *TlsServerConfig.model_fields, *HttpServerConfig.model_fields}


@dataclass(frozen=True, slots=True)
class WebConfig:
    """A valid web configuration, and the stamps of the files that were read."""

    tls: ssl.SSLContext | None
    """`None` for plain HTTP."""
    allowed_sans: frozenset[str]
    """A client certificate needs one of these subject alternative names; empty if any will do."""
    users: Mapping[str, str] = field(repr=False)
    """bcrypt hashes by user name; empty for no authentication."""
    headers: Mapping[str, str]
    stamps: Mapping[Path, Stamp]


def load(path: Path) -> WebConfig:
    """Read the file and the certificates that it names; relative paths start in its folder.

    Raises:
        SettingsError: with every problem; the certificates are checked once all else is valid.
    """
    stamps = {path: stamp(path)}
    data, lines = yaml_file.read(path)
    try:
        file = WebConfigFile.model_validate(data, context=path.parent)
    except pydantic.ValidationError as error:
        raise SettingsError([_describe(each, path, lines) for each in error.errors()]) from None
    context, sans, tls = None, frozenset[str](), file.tls_server_config
    if tls:
        pem_files = tls.cert_file, tls.key_file, tls.client_ca_file
        stamps |= {each: stamp(each) for each in pem_files if each}
        sans = frozenset(tls.client_allowed_sans or ())
        try:
            context = _ssl_context(tls)
        except OSError as error:  # also ssl.SSLError
            reason = getattr(error, "verify_message", error.strerror)
            where = f"{path}:{lines['tls_server_config',]}: tls_server_config"
            raise SettingsError([f"{where}: no valid PEM certificate and key: {reason}"]) from None
    headers = {name: value for name, value in file.http_server_config.headers.items() if value}
    return WebConfig(context, sans, file.basic_auth_users, headers, stamps)


def stamp(path: Path) -> Stamp:
    """Return what changes whenever the file does."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _describe(error: Any, path: Path, lines: Mapping[yaml_file.KeyPath, int]) -> str:
    """Return a message without values, and without keys that may be secrets."""
    location = error["loc"]
    line = max(lines.get(location[:length], 1) for length in range(len(location) + 1))
    key = ".".join(each for each in location if each in _KEYS)
    unknown = error["type"] == "extra_forbidden"
    message = "unknown or unsupported key" if unknown else error["msg"]
    parts = f"{path}:{line}", key, message.removeprefix("Value error, ")
    return ": ".join(filter(None, parts))


def _ssl_context(config: TlsServerConfig) -> ssl.SSLContext:
    """Return a context with which clients complete a handshake. Raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[config.min_version]
    context.maximum_version = _VERSIONS[config.max_version]
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(CIPHERS)
    context.set_ecdh_curve(CURVE)
    context.load_cert_chain(config.cert_file, config.key_file, password="")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.set_ecdh_curve(CURVE)
    _trust(client, config.cert_file)
    _shake_hands(client, context)
    if config.client_ca_file:
        _trust(context, config.client_ca_file)
        context.verify_mode = _VERIFY_MODES[config.client_auth_type]
    return context


def _trust(context: ssl.SSLContext, file: Path) -> None:
    """Trust every certificate in the file, also those that are not self-signed."""
    context.load_verify_locations(file)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


def _shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    """Raise SSLError if the client rejects the server's certificate: it has expired, or is weak."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    peers = [
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for peer in peers * 2:
        with suppress(ssl.SSLWantReadError):
            peer.do_handshake()
