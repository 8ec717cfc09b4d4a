"""The web configuration file: TLS, users, headers, in the format of Prometheus' exporter-toolkit, and strict about it.

What YAML may be is left to `exporter.settings_file`, what comes of a request to `exporter.guard`. The format:
https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md
"""

import difflib
import ipaddress
import os
import re
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from pydantic import PlainValidator

from exporter import settings_file, values
from exporter.errors import SettingsError

_TLS, _USERS = "tls_server_config", "basic_auth_users"
_VERSIONS = {"min": ssl.TLSVersion.TLSv1_2, "max": ssl.TLSVersion.TLSv1_3}
_OLD_VERSIONS = dict.fromkeys(("TLS10", "TLS11"), "is insecure, and RFC 8996 forbids it")
_STRICT = "client_auth_type: RequireAndVerifyClientCert"
_POLICIES = {
    "NoClientCert": ssl.CERT_NONE,
    "RequestClientCert": ssl.CERT_NONE,  # whatever certificate would come, it would change nothing
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_OPEN_POLICIES = dict.fromkeys(
    ("RequireAnyClientCert", "RequireClientCert"),
    "is insecure: anybody can make a certificate; RequireAndVerifyClientCert is what protects",
)
_SUITES = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
}
_ALL_SUITES = ":".join(_SUITES.values())
# The suites of TLS 1.3 can be named, but not chosen: neither here nor in Go.
_SUITES_13 = dict.fromkeys(("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"), "")
_CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}
_HEADERS = {
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
}  # fmt: skip
# The last characters of salt and hash have bits to spare, which are zero.
_HASH = re.compile(r"\$2[aby]\$(?P<cost>[0-9]{2})\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{30}[.CGKOSWaeimquy26]")

Stamp = tuple[int, ...] | None
"""What differs where a file has changed, its last change in Unix nanoseconds first; None where there is no file."""
_Parse = Callable[[object], Any]


@dataclass(frozen=True, slots=True)
class WebConfig:
    """What a file says, checked. `tls` None is plain HTTP, no `users` is no authentication."""

    tls: ssl.SSLContext | None
    sans: frozenset[str]
    """Names of which a client's certificate needs one; empty if any name will do."""
    users: Mapping[str, str] = field(repr=False)
    """Hash of the password by name."""
    headers: Mapping[str, str]
    rate_limit: tuple[float, int] | None
    """Seconds a request, and how many may come at once."""
    files: Mapping[Path, Stamp]
    """The files it was made of, and what shows that one has changed."""

    @property
    def protection(self) -> set[str]:
        """What keeps strangers out."""
        strict = self.tls is not None and self.tls.verify_mode is ssl.CERT_REQUIRED
        asked = {"TLS": self.tls, "client certificates": strict, "client_allowed_sans": self.sans, _USERS: self.users}
        return {name for name, given in asked.items() if given}


def read(path: Path) -> WebConfig:
    """Read a file and those that it names; relative paths begin in its folder.

    Raises:
        SettingsError: with every problem there is, and in none of them a password, a hash or a key. Certificates and
            keys are tried once everything else is right.
    """
    file = _File(path)
    config = file.config()
    if file.problems:
        raise SettingsError([f"{path}{place}: {problem}" for place, problem in sorted(file.problems, key=_in_order)])
    return config


def _in_order(problem: tuple[str, str]) -> list[int]:
    return [int(number) for number in problem[0].split(":")[1:]]


class _File:
    """A file while it is read: what is given so far, where it stands, and what is wrong with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[tuple[str, str]] = []
        self._given: dict[str, Any] = {}
        self._places: dict[str, str] = {}
        self._stamps: dict[Path, Stamp] = {}

    def config(self) -> WebConfig:
        try:
            entries, found = settings_file.read(self._content(self.path))
        except ValueError as error:
            entries, found = [], []
            self.problems.append(("", str(error)))
        self.problems += [(f":{place}", problem) for place, problem in found]
        for entry in entries:
            self._places[entry.name] = f":{entry.place}"
            group, _, name = entry.name.partition(".")
            try:
                if group == _USERS and name:
                    self._given[entry.name] = _user_hash(name, entry.value)
                else:
                    self._given[entry.name] = _parser(entry.name)(entry.value)
            except ValueError as error:
                # What stands here by mistake may be a secret: names of settings look otherwise.
                called = entry.name if re.fullmatch("[A-Za-z0-9_.-]{1,60}", entry.name) else "this name"
                self._report(entry.name, str(error), _USERS if group == _USERS else called)
        if not entries and not self.problems:
            self.problems.append(("", "says nothing, neither of TLS nor of users; leave web.config_file out for that"))
        users = {name.partition(".")[2]: it for name, it in self._given.items() if name.startswith(f"{_USERS}.")}
        return WebConfig(
            self._tls() if any(name.startswith(f"{_TLS}.") for name in self._places) else None,
            frozenset(self._get(f"{_TLS}.client_allowed_sans", ()) or ()),
            users,
            self._get("http_server_config.headers", {}),
            self._rate_limit(),
            self._stamps,
        )

    def _report(self, name: str, problem: str, called: str | None = None) -> None:
        """Note a problem where a setting stands, or would: at the first of its group."""
        group = name.partition(".")[0]
        place = self._places.get(name) or next(it for other, it in self._places.items() if other.startswith(group))
        self.problems.append((place, f"{called or name}: {problem}"))

    def _get(self, name: str, default: Any) -> Any:
        """Return what is given; None where that was wrong."""
        return self._given.get(name) if name in self._places else default

    def _content(self, path: Path) -> bytes:
        self._stamps[path] = stamp(path)
        return values.content(path)

    def _rate_limit(self) -> tuple[float, int] | None:
        interval, burst = self._get("rate_limit.interval", 0.0), self._get("rate_limit.burst", 0)
        if interval and burst == 0:
            self._report("rate_limit.burst", "is missing: how many requests may come at once")
        return (interval, burst) if interval else None

    def _tls(self) -> ssl.SSLContext | None:
        pems = {part: self._pem(part) for part in ("cert", "key", "client_ca")}
        for name, problem in self._conflicts():
            self._report(f"{_TLS}.{name}", problem)
        if self.problems:
            return None
        try:
            return self._context(**pems)
        except _PemError as error:
            self._report(f"{_TLS}.{self._source(error.part)}", str(error))
        except OSError as error:
            self._report(f"{_TLS}.{self._source('cert')}", f"can not be used: {error.strerror}")
        return None

    def _source(self, part: str) -> str:
        """Return the setting that holds a PEM text itself, or the one that names its file."""
        return part if f"{_TLS}.{part}" in self._places else f"{part}_file"

    def _pem(self, part: str) -> bytes:
        """Return a PEM text; empty where there is none."""
        if text := self._get(f"{_TLS}.{part}", ""):
            return str(text).encode()
        try:
            path = self._get(f"{_TLS}.{part}_file", "")
            return self._content(self.path.parent / path) if path else b""
        except ValueError as error:
            self._report(f"{_TLS}.{part}_file", str(error))
            return b""

    def _conflicts(self) -> Iterator[tuple[str, str]]:
        """Give what is missing or can not go together: the setting, and what would be right."""
        given = {name.partition(".")[2] for name in self._places if name.startswith(f"{_TLS}.")}
        yield from ((f"{part}_file", "is missing") for part in ("cert", "key") if self._source(part) not in given)
        for part in ("cert", "key", "client_ca"):
            if {part, f"{part}_file"} <= given:
                yield part, f"only one of {part} and {part}_file can be set"
        policy, ca = self._get(f"{_TLS}.client_auth_type", ssl.CERT_NONE), self._source("client_ca")
        if policy == ssl.CERT_NONE and ca in given:
            yield ca, f"verifies nobody without {_STRICT}"
        if policy and ca not in given:
            yield "client_auth_type", "needs client_ca_file: who signs the certificates of clients"
        if policy in (ssl.CERT_NONE, ssl.CERT_OPTIONAL) and "client_allowed_sans" in given:
            yield "client_allowed_sans", f"needs {_STRICT}"
        if self._get(f"{_TLS}.client_allowed_sans", None) == ():
            yield "client_allowed_sans", "lets nobody in; leave it out if any name will do"
        least, most = (self._get(f"{_TLS}.{end}_version", _VERSIONS[end]) for end in ("min", "max"))
        if least and most and least > most:
            yield "max_version", "is lower than min_version"
        suites = self._get(f"{_TLS}.cipher_suites", ())
        if suites and not any(suites) and least == ssl.TLSVersion.TLSv1_2:
            yield "cipher_suites", "has none for TLS 1.2: add one, or set min_version: TLS13"
        if len(self._get(f"{_TLS}.curve_preferences", ()) or ()) > 1:
            yield (
                "curve_preferences",
                "Python's ssl can be held to one curve only: name that one, or leave the list out for OpenSSL's own",
            )

    def _context(self, cert: bytes, key: bytes, client_ca: bytes) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self._get(f"{_TLS}.min_version", _VERSIONS["min"])
        context.maximum_version = self._get(f"{_TLS}.max_version", _VERSIONS["max"])
        context.options |= ssl.OP_NO_RENEGOTIATION
        if not self._get(f"{_TLS}.prefer_server_cipher_suites", default=True):
            context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
        context.set_alpn_protocols(["http/1.1"])
        context.set_ciphers(":".join(filter(None, self._get(f"{_TLS}.cipher_suites", ()))) or _ALL_SUITES)
        for curve in self._get(f"{_TLS}.curve_preferences", ()):
            context.set_ecdh_curve(curve)
        _load(context, cert, key)
        if client_ca:
            _trust(context, client_ca, "client_ca")
            context.verify_mode = self._get(f"{_TLS}.client_auth_type", ssl.CERT_NONE)
        return context


class _PemError(ValueError):
    """Something is wrong with the certificate (`part` is cert), the key (key) or the authorities (client_ca)."""

    def __init__(self, part: str, problem: str) -> None:
        self.part = part
        super().__init__(problem)


def _load(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Load a certificate and its key, and see that a client gets through with them."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    _trust(client, certificate, "cert")
    try:
        with _in_memory(certificate) as certificate_path, _in_memory(key) as key_path:
            context.load_cert_chain(certificate_path, key_path, _no_password)
    except ssl.SSLError as error:
        cause = str(error.reason)
        if "TOO_" in cause:
            raise _PemError("cert", f"is refused: {cause.lower().replace('_', ' ')}") from None
        foreign = cause in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
        problem = "does not belong to the certificate" if foreign else "holds no private key in PEM format"
        raise _PemError("key", problem) from None
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(back, there), context.wrap_bio(there, back, server_side=True)]
    try:
        for end in ends * 2:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    except ssl.SSLCertVerificationError as error:
        raise _PemError("cert", f"is refused by clients: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise _PemError("cert", f"is of no use here: {str(error.reason).lower().replace('_', ' ')}") from None


def _trust(context: ssl.SSLContext, authorities: bytes, part: str) -> None:
    """Trust these certificates, each by itself as Go does, and heed the revocations that stand beside them."""
    try:
        with _in_memory(authorities) as path:
            context.load_verify_locations(path)
    except ssl.SSLError:
        raise _PemError(part, "holds no certificate in PEM format") from None
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if b"-----BEGIN X509 CRL-----" in authorities:
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """Give content a path, as Python's ssl wants one; no key comes to a disk by it."""
    with os.fdopen(os.memfd_create("pem"), "wb", buffering=0) as file:
        file.write(content)
        yield f"/proc/self/fd/{file.fileno()}"


def _no_password() -> str:
    raise _PemError("key", "is encrypted, and nobody is here to be asked for the password")


def stamp(path: Path) -> Stamp:
    """Look at a file without reading it."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ctime_ns, found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev


# What a value may be. A parser raises ValueError with what would be right, and never with the value.


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("must be a text; leave it out for none")
    return value


def _word(known: Mapping[str, Any], refused: Mapping[str, str] | None = None) -> _Parse:
    def parse(value: object) -> Any:
        word = _text(value)
        if refused and word in refused:
            raise ValueError(f"{word} {refused[word]}")
        if word not in known:
            raise ValueError(f"must be {' or '.join(known)}")
        return known[word]

    return parse


def _list(parse: _Parse) -> _Parse:
    def parse_all(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise ValueError("must be a list")  # noqa: TRY004  one kind of error for all that can be wrong
        return tuple(map(parse, value))

    return parse_all


def _suite(value: object) -> str:
    known = {**_SUITES, **_SUITES_13}
    if (name := _text(value)) not in known:
        raise ValueError(f"has one that is unknown or insecure{_near(name, known)}")
    return known[name]


def _headers(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError("must be headers and their values")  # noqa: TRY004  as above
    for name, text in value.items():
        if name not in _HEADERS:
            raise ValueError(f"can only be {', '.join(_HEADERS)}")
        if not isinstance(text, str) or not re.fullmatch("[ -~]*", text):
            raise ValueError(f"{name} must be one line of ASCII")
        if text and _HEADERS[name] and text not in _HEADERS[name]:
            raise ValueError(f"{name} must be {' or '.join(_HEADERS[name])}")
    return {name: text for name, text in value.items() if text}


def _as(validator: PlainValidator) -> _Parse:
    return cast("_Parse", validator.func)


def _user_hash(user: str, value: object) -> str:
    if ":" in user or not user.isprintable():
        raise ValueError("a name with a colon or a control character can not log in")
    match = _HASH.fullmatch(value) if isinstance(value, str) else None
    if not match:
        raise ValueError("must be a bcrypt hash of the password, as htpasswd -nBC 10 makes it")
    if not 10 <= int(match["cost"]) <= 14:
        raise ValueError("the cost of the hash must be 10 to 14: less is soon guessed, more keeps a scrape waiting")
    return match[0]


def names(certificate: Mapping[str, Any] | None) -> set[str]:
    """Return the names in a client's certificate, as Python's ssl gives it: hosts, addresses, e-mail and URIs."""
    return {_name(name) for _, name in (certificate or {}).get("subjectAltName", ())}


def _name(text: str) -> str:
    """Write an address as everybody does; another name stays as it is."""
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        return text


_boolean = _word({"true": True, "false": False})
_PARSERS: dict[str, _Parse] = {
    **{f"{_TLS}.{name}{form}": _text for name in ("cert", "key", "client_ca") for form in ("_file", "")},
    f"{_TLS}.client_auth_type": _word(_POLICIES, _OPEN_POLICIES),
    f"{_TLS}.client_allowed_sans": _list(lambda value: _name(_text(value))),
    f"{_TLS}.min_version": _word({"TLS12": _VERSIONS["min"], "TLS13": _VERSIONS["max"]}, _OLD_VERSIONS),
    f"{_TLS}.max_version": _word({"TLS12": _VERSIONS["min"], "TLS13": _VERSIONS["max"]}, _OLD_VERSIONS),
    f"{_TLS}.cipher_suites": _list(_suite),
    f"{_TLS}.prefer_server_cipher_suites": _boolean,
    f"{_TLS}.curve_preferences": _list(_word(_CURVES)),
    "http_server_config.http2": _boolean,  # for Go: a client that could speak it finds HTTP/1.1 here, and speaks that
    "http_server_config.headers": _headers,
    "rate_limit.interval": _as(values.duration("0s", "1h")),
    "rate_limit.burst": _as(values.integer(1, 1_000_000)),
}


def _parser(name: str) -> _Parse:
    if name in _PARSERS:
        return _PARSERS[name]
    if name in {_USERS, *(known.partition(".")[0] for known in _PARSERS)}:
        raise ValueError("must be a group of settings")
    raise ValueError(f"is not known{_near(name, _PARSERS)}")


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name[:100], list(known), 1, 0.5)
    return f"; did you mean {near[0]}?" if near else ""
