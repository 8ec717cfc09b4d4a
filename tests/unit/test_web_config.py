"""The web configuration file: what is accepted, and the place of every problem."""

import itertools
import ssl
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pki
import pytest
from web_server import HASH, PASSWORD, TLS, USERS, install

from exporter.errors import SettingsError
from exporter.web.config import WebConfig, load

Change = Callable[[Path], object]
CA = "  client_ca_file: ca.crt\n"
STRICT = "  client_auth_type: RequireAndVerifyClientCert\n"
EVERY_KEY = f"""
tls_server_config:
  cert_file: server.crt
  key_file: server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.crt
  client_allowed_sans: [prometheus.example, "spiffe://example/prometheus"]
  min_version: TLS13
  max_version: TLS13
http_server_config:
  http2: false
  headers:
    X-Frame-Options: deny
    X-XSS-Protection: ""
basic_auth_users:
  alice: {HASH}
  "carol danvers": {HASH.replace("$2b$", "$2y$")}
"""


def read(folder: Path, text: str, change: Change = install) -> WebConfig:
    install(folder)
    change(folder)
    (folder / "web.yml").write_text(text)
    return load(folder / "web.yml")


def test_every_supported_key_is_read(tmp_path: Path) -> None:
    config = read(tmp_path, EVERY_KEY)
    assert config.allowed_sans == {"prometheus.example", "spiffe://example/prometheus"}
    assert config.headers == {"X-Frame-Options": "deny"}
    assert list(config.users) == ["alice", "carol danvers"]
    assert HASH not in repr(config)
    names = ("web.yml", "server.crt", "server.key", "ca.crt")
    assert config.stamps.keys() == {tmp_path / name for name in names}
    assert config.tls
    assert config.tls.verify_mode is ssl.CERT_REQUIRED


def user(hash_: str) -> str:
    return f"basic_auth_users: {{alice: {hash_}}}"


def copy(source: str, target: str) -> Change:
    return lambda folder: (folder / target).write_bytes((folder / source).read_bytes())


def encrypt(folder: Path) -> None:
    password = ("-passout", f"pass:{PASSWORD}")
    pki.openssl("pkcs8", "-topk8", "-in", "server.key", "-out", "new", *password, cwd=folder)
    (folder / "new").rename(folder / "server.key")


def issued(file: str = "", **options: Any) -> Change:
    return lambda folder: install(folder, pki.shared_authority().issue("new", **options), file)


@pytest.mark.parametrize(
    ("text", "expected", "change"),
    [
        *((*case, install) for case in (
            ("", "cannot be read: empty file"),
            ("rate_limit: {interval: 0, burst: 0}", "1: unknown or unsupported key"),
            ("- x", "1: "),
            (USERS + USERS, "3: "),
            ("tls_server_config:", "1: tls_server_config: is empty"),
            (TLS + "  cipher_suites: [x]", "4: tls_server_config: unknown"),
            (f"{HASH}: {{x: y}}", "1: unknown"),
            ("tls_server_config: {key_file: server.key}", "1: tls_server_config.cert_file: "),
            (TLS.replace("server.crt", "[a]"), "2: tls_server_config.cert_file: "),
            (TLS.replace("server.crt", "."), "2: tls_server_config.cert_file: cannot be read: "),
            (TLS.replace("server.k", "x"), "3: tls_server_config.key_file: cannot be read: "),
            (TLS + "  min_version: TLS10\n", "4: tls_server_config.min_version: "),
            (TLS + "  min_version: TLS13\n  max_version: TLS12\n", "1: tls_server_config: "),
            (TLS + "  client_auth_type: RequireAnyClientCert", "4: tls_server_config.client_"),
            (TLS + CA, "1: tls_server_config: client_ca_file requires client_auth_type"),
            (TLS + STRICT, "1: tls_server_config: client_ca_file requires client_auth_type"),
            (TLS + STRICT + CA.replace("ca.crt", "server.key"), "1: tls_server_config: "),
            (TLS + "  client_allowed_sans: [x]\n", "client_allowed_sans requires"),
            (TLS + CA + STRICT + "  client_allowed_sans: []\n", "6: tls_server_config.client_allo"),
            ("http_server_config: {http2: maybe}", "1: http_server_config.http2: "),
            (f"http_server_config: {{headers: {{{PASSWORD}: x}}}}", "1: http_server_config"),
            ('http_server_config: {headers: {X-XSS-Protection: "0\\r\\nX"}}', "http_server_config"),
            (f"basic_auth_users: {{'a:b': {HASH}}}", "1: basic_auth_users: "),
            (f"basic_auth_users: {{{HASH}: x}}", "1: basic_auth_users: must be a bcrypt hash"),
            *((user(each), "1: basic_auth_users: must be a bcrypt hash of cost 10") for each in (
                PASSWORD, HASH[:-1], f"{HASH[:-1]}z", HASH.replace("$2b", "$2x"),
                HASH.replace("$10", "$09"), HASH.replace("$10", "$15"),
            )),
        )),
        *((TLS, "1: tls_server_config: ", change) for change in (
            copy("server.key", "server.crt"), copy("server.crt", "server.key"), encrypt,
            issued("server.key", key="rsa"), issued(usage="clientAuth"), issued(until=2021),
        )),
    ],
    ids=itertools.count(),  # texts contain secrets
)  # fmt: skip
def test_an_invalid_file_is_refused(
    tmp_path: Path, text: str, expected: str, change: Change
) -> None:
    with pytest.raises(SettingsError) as raised:
        read(tmp_path, text, change)
    shown = "".join(traceback.format_exception(raised.value))
    assert [secret for secret in (HASH[7:], PASSWORD, "PRIVATE") if secret in shown] == []
    (problem,) = raised.value.problems
    assert expected in problem.removeprefix(f"{tmp_path / 'web.yml'}:")


def test_all_problems_are_reported(tmp_path: Path) -> None:
    text = "http_server_config:\n  http2: 1\n" + user(PASSWORD) + "\nx: y\n"
    with pytest.raises(SettingsError) as raised:
        read(tmp_path, text)
    lines = [problem.partition("web.yml:")[2][:2] for problem in raised.value.problems]
    assert lines == ["2:", "3:", "4:"]
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        load(tmp_path / "missing")
