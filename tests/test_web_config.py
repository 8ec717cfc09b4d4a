"""A web configuration file is taken whole or refused with every reason, and no reason shows a secret."""

import os
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from pki import Authority, Identity, openssl

from exporter.errors import SettingsError
from exporter.web_config import WebConfig, names, read

PASSWORD = "canary-8fKq2"
HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()
USERS = f"basic_auth_users:\n  alice: {HASH}\n"
PAIR = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"), "authority")


@pytest.fixture(scope="module")
def server(authority: Authority) -> Identity:
    return authority.issue("server", sans="DNS:localhost", key="rsa")


@pytest.fixture
def folder(tmp_path: Path, authority: Authority, server: Identity) -> Path:
    """A folder with a certificate, its key, and the authority of clients."""
    install(server, tmp_path)
    (tmp_path / "ca.crt").write_bytes(authority.certificate.read_bytes())
    return tmp_path


def install(identity: Identity, folder: Path) -> None:
    (folder / "server.crt").write_bytes(identity.certificate.read_bytes())
    (folder / "server.key").write_bytes(identity.key.read_bytes())


def configured(folder: Path, text: str) -> WebConfig:
    path = folder / "web.yml"
    path.write_text(text)
    return read(path)


def problems(folder: Path, text: str) -> list[str]:
    """What a text is refused for, without the path; never a secret of it."""
    with pytest.raises(SettingsError) as refused:
        configured(folder, text)
    prefix = f"{folder / 'web.yml'}:"
    for problem in refused.value.problems:
        assert problem.startswith(prefix)
        assert HASH[7:] not in problem
        assert PASSWORD not in problem
        assert "PRIVATE" not in problem
    return [problem.removeprefix(prefix).strip() for problem in refused.value.problems]


# The file.


def test_a_file_says_all_that_the_format_knows(folder: Path) -> None:
    config = configured(
        folder,
        f"""
tls_server_config:
  cert_file: server.crt
  key_file: {folder}/server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.crt
  client_allowed_sans: [prometheus.example, "::0:1", prometheus@example.org, "spiffe://example/prometheus"]
  min_version: TLS12
  max_version: TLS13
  cipher_suites: [TLS_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]
  prefer_server_cipher_suites: false
  curve_preferences: [X25519]
http_server_config:
  http2: false
  headers:
    X-Frame-Options: deny
    X-Content-Type-Options: nosniff
    X-XSS-Protection: ""
    Strict-Transport-Security: max-age=600
    Content-Security-Policy: "default-src 'self'"
basic_auth_users:
  alice: {HASH}
  bob.example: {HASH.replace("$2b$", "$2y$")}
  "carol danvers": {HASH.replace("$2b$", "$2a$")}
rate_limit:
  interval: 1m500ms
  burst: 20
""",
    )
    assert config.sans == {"prometheus.example", "::1", "prometheus@example.org", "spiffe://example/prometheus"}
    assert config.headers == {
        "X-Frame-Options": "deny",
        "X-Content-Type-Options": "nosniff",
        "Strict-Transport-Security": "max-age=600",
        "Content-Security-Policy": "default-src 'self'",
    }
    assert list(config.users) == ["alice", "bob.example", "carol danvers"]
    assert config.rate_limit == (60.5, 20)
    assert {path.name for path in config.files} == {"web.yml", "server.crt", "server.key", "ca.crt"}
    assert config.protection == {"TLS", "client certificates", "client_allowed_sans", "basic_auth_users"}
    assert config.tls
    assert config.tls.verify_mode is ssl.CERT_REQUIRED
    assert not config.tls.options & ssl.OP_CIPHER_SERVER_PREFERENCE
    assert suites(config.tls) == ["ECDHE-RSA-AES256-GCM-SHA384"]


def suites(context: ssl.SSLContext) -> list[str]:
    return [suite["name"] for suite in context.get_ciphers() if suite["protocol"] != "TLSv1.3"]


def test_what_is_left_out_is_safe(folder: Path) -> None:
    config = configured(folder, PAIR)
    assert config.tls
    assert config.tls.minimum_version is ssl.TLSVersion.TLSv1_2
    assert config.tls.maximum_version is ssl.TLSVersion.TLSv1_3
    assert config.tls.verify_mode is ssl.CERT_NONE
    assert config.tls.options & ssl.OP_CIPHER_SERVER_PREFERENCE
    assert config.tls.options & ssl.OP_NO_RENEGOTIATION
    assert suites(config.tls)
    assert all(re.fullmatch("ECDHE-(RSA|ECDSA)-(AES.*-GCM-.*|CHACHA20-POLY1305)", name) for name in suites(config.tls))
    assert (config.sans, config.users, config.headers, config.rate_limit) == (set(), {}, {}, None)


def test_users_alone_need_no_certificate(folder: Path) -> None:
    config = configured(folder, USERS)
    assert config.tls is None
    assert config.users == {"alice": HASH}
    assert config.protection == {"basic_auth_users"}
    assert HASH not in repr(config)


def test_certificate_and_key_can_stand_in_the_file_and_reach_no_disk(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/nowhere")
    texts = {name: (folder / file).read_text() for name, file in (("cert", "server.crt"), ("key", "server.key"))}
    texts["client_ca"] = (folder / "ca.crt").read_text()
    lines = [f"  {name}: |\n" + "".join(f"    {line}\n" for line in text.splitlines()) for name, text in texts.items()]
    config = configured(folder, f"tls_server_config:\n{''.join(lines)}  client_auth_type: VerifyClientCertIfGiven\n")
    assert config.tls
    assert config.tls.verify_mode is ssl.CERT_OPTIONAL
    assert [path.name for path in config.files] == ["web.yml"]


def test_one_file_can_hold_certificate_and_key(folder: Path) -> None:
    (folder / "both.pem").write_bytes((folder / "server.key").read_bytes() + (folder / "server.crt").read_bytes())
    assert configured(folder, "tls_server_config: {cert_file: both.pem, key_file: both.pem}").tls


def test_a_rate_of_nothing_is_no_limit(folder: Path) -> None:
    assert configured(folder, USERS + "rate_limit: {interval: 0}").rate_limit is None
    assert configured(folder, USERS + "rate_limit: {burst: 5}").rate_limit is None


STRICT = "  client_auth_type: RequireAndVerifyClientCert\n"
CA = "  client_ca_file: ca.crt\n"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        pytest.param("", ["says nothing, neither of TLS nor of users; leave web.config_file out"], id="C01-empty"),
        pytest.param("tls_server_config:\n", ["says nothing"], id="C01-empty-group"),
        pytest.param("\tx: y", ["1:1: found character"], id="C01-tab"),
        pytest.param("- x", ["1:1: settings are expected by group"], id="C01-not-a-map"),
        pytest.param(USERS + USERS, ["3:1: this name stands twice"], id="C01-twice"),
        pytest.param(f"a: &a {HASH}\nb: *a", ["1:4: anchors and aliases are not accepted"], id="C01-alias"),
        pytest.param("basic_auth_users: !!python/object x", ["1:19: tags are not accepted"], id="C01-tag"),
        pytest.param(
            PAIR.replace("cert_file", "cert_fiel"),
            [
                "2:3: tls_server_config.cert_fiel: is not known; did you mean tls_server_config.cert_file?",
                "2:3: tls_server_config.cert_file: is missing",
            ],
            id="C01-misspelt",
        ),
        pytest.param("tls_config:\n  x: y", ["2:3: tls_config.x: is not known"], id="C01-unknown"),
        pytest.param(f"{HASH}:\n  x: y", ["2:3: this name: is not known"], id="a-secret-for-a-name"),
        pytest.param("tls_server_config: x", ["1:1: tls_server_config: must be a group"], id="a-text-for-a-group"),
        pytest.param("basic_auth_users: x", ["1:1: basic_auth_users: must be a group"], id="a-text-for-users"),
        pytest.param(
            PAIR.replace("server.crt", "[a]"), ["2:3: tls_server_config.cert_file: must be a text"], id="type"
        ),
        pytest.param(
            PAIR + "  min_version:\n", ["4:3: tls_server_config.min_version: must be a text; leave"], id="nothing"
        ),
        pytest.param(
            "http_server_config: {http2: maybe}",
            ["1:22: http_server_config.http2: must be true or false"],
            id="boolean",
        ),
        pytest.param("rate_limit: {interval: often}", ["1:14: rate_limit.interval: must be a duration"], id="interval"),
        pytest.param("rate_limit: {interval: 1s}", ["1:14: rate_limit.burst: is missing"], id="no-burst"),
        pytest.param("rate_limit: {interval: 1s, burst: 0}", ["1:28: rate_limit.burst: must be a whole"], id="burst"),
        pytest.param(
            "http_server_config: {headers: x}", ["1:22: http_server_config.headers: must be headers"], id="headers"
        ),
        pytest.param("http_server_config: {headers: {Server: x}}", ["can only be Content-Security"], id="other-header"),
        pytest.param(
            "http_server_config: {headers: {X-Frame-Options: allow}}", ["must be deny or sameorigin"], id="frame"
        ),
        pytest.param(
            'http_server_config: {headers: {X-XSS-Protection: "0\\r\\nSet-Cookie: x"}}',
            ["one line"],
            id="header-smuggled",
        ),
        pytest.param("http_server_config: {headers: {X-XSS-Protection: [0]}}", ["one line of ASCII"], id="header-list"),
        # TLS.
        pytest.param(
            "tls_server_config: {min_version: TLS13}",
            ["tls_server_config.cert_file: is missing", "tls_server_config.key_file: is missing"],
            id="C09-no-certificate",
        ),
        pytest.param(
            PAIR.replace("server.", "other."),
            ["2:3: tls_server_config.cert_file: can not be read: No such", "3:3: tls_server_config.key_file: can not"],
            id="C09-missing",
        ),
        pytest.param(
            PAIR + "  cert: x\n  key: y\n",
            ["only one of cert and cert_file", "only one of key and key_file"],
            id="C09-file-and-text",
        ),
        pytest.param(PAIR.replace("server.crt", '"\\0"'), ["embedded null"], id="path-nul"),
        pytest.param(PAIR.replace("server.crt", "."), ["cert_file: can not be read: Is a directory"], id="path-folder"),
        pytest.param(PAIR + "  min_version: TLS10\n", ["TLS10 is insecure, and RFC 8996 forbids it"], id="X06-tls10"),
        pytest.param(PAIR + "  max_version: TLS11\n", ["TLS11 is insecure, and RFC 8996 forbids it"], id="X06-tls11"),
        pytest.param(PAIR + "  min_version: SSL3\n", ["must be TLS12 or TLS13"], id="X06-ssl3"),
        pytest.param(
            PAIR + "  min_version: TLS13\n  max_version: TLS12\n",
            [
                "5:3:",
            ],
            id="X06-upside-down",
        ),
        pytest.param(
            PAIR + "  cipher_suites: [TLS_RSA_WITH_3DES_EDE_CBC_SHA]\n", ["is unknown or insecure"], id="X06-3des"
        ),
        pytest.param(
            PAIR + "  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA]\n",
            ["unknown or insecure; did you mean TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256?"],
            id="X06-cbc",
        ),
        pytest.param(
            PAIR + "  cipher_suites: TLS_AES\n", ["4:3: tls_server_config.cipher_suites: must be a list"], id="suite"
        ),
        pytest.param(
            PAIR + "  cipher_suites: [TLS_AES_128_GCM_SHA256]\n", ["has none for TLS 1.2"], id="suites-of-1.3-alone"
        ),
        pytest.param(
            PAIR + "  curve_preferences: [X25519, CurveP256]\n", ["can be held to one curve only"], id="two-curves"
        ),
        pytest.param(PAIR + "  curve_preferences: [P256]\n", ["must be CurveP256 or CurveP384 or"], id="other-curve"),
        # Certificates of clients.
        pytest.param(PAIR + CA, ["4:3: tls_server_config.client_ca_file: verifies nobody without"], id="C12-no-policy"),
        pytest.param(PAIR + CA + "  client_auth_type: NoClientCert\n", ["verifies nobody"], id="C12-no-client-cert"),
        pytest.param(PAIR + CA + "  client_auth_type: RequestClientCert\n", ["verifies nobody"], id="C12-request"),
        pytest.param(PAIR + CA + "  client_auth_type: RequireAnyClientCert\n", ["is insecure: anybody"], id="C12-any"),
        pytest.param(PAIR + CA + "  client_auth_type: RequireClientCert\n", ["is insecure: anybody"], id="C12-old-any"),
        pytest.param(PAIR + CA + "  client_auth_type: Always\n", ["must be NoClientCert or"], id="C12-unknown"),
        pytest.param(PAIR + STRICT, ["4:3: tls_server_config.client_auth_type: needs client_ca_file"], id="C12-no-ca"),
        pytest.param(PAIR + STRICT + "  client_ca_file: server.key\n", ["holds no certificate"], id="C12-key-for-ca"),
        pytest.param(
            PAIR + CA + "  client_auth_type: VerifyClientCertIfGiven\n  client_allowed_sans: [x]\n",
            ["6:3: tls_server_config.client_allowed_sans: needs client_auth_type: RequireAndVerify"],
            id="C12-sans-for-some",
        ),
        pytest.param(PAIR + CA + STRICT + "  client_allowed_sans: []\n", ["lets nobody in"], id="C12-no-sans"),
        pytest.param(PAIR + CA + STRICT + "  client_allowed_sans: x\n", ["must be a list"], id="C12-sans-no-list"),
        # Users.
        pytest.param(f"basic_auth_users: {{alice: {PASSWORD}}}", ["must be a bcrypt hash"], id="C11-plaintext"),
        pytest.param(f"basic_auth_users: {{alice: [{HASH}]}}", ["must be a bcrypt hash"], id="C11-list"),
        pytest.param(f"basic_auth_users: {{alice: {HASH[:-1]}}}", ["must be a bcrypt hash"], id="C11-short"),
        pytest.param(f"basic_auth_users: {{alice: {HASH}A}}", ["must be a bcrypt hash"], id="C11-long"),
        pytest.param(f"basic_auth_users: {{alice: {HASH[:28]}z{HASH[29:]}}}", ["must be a bcrypt hash"], id="C11-salt"),
        pytest.param(f"basic_auth_users: {{alice: {HASH[:-1]}z}}", ["must be a bcrypt hash"], id="C11-end"),
        pytest.param(f"basic_auth_users: {{alice: {HASH.replace('$2b', '$2x')}}}", ["bcrypt hash"], id="C11-2x"),
        pytest.param(
            f"basic_auth_users: {{alice: {HASH.replace('$10', '$04')}}}", ["must be 10 to 14"], id="C11-cost-4"
        ),
        pytest.param(
            f"basic_auth_users: {{alice: {HASH.replace('$10', '$09')}}}", ["must be 10 to 14"], id="C11-cost-9"
        ),
        pytest.param(
            f"basic_auth_users: {{alice: {HASH.replace('$10', '$15')}}}", ["must be 10 to 14"], id="C11-cost-15"
        ),
        pytest.param(
            f"basic_auth_users: {{alice: {HASH.replace('$10', '$17')}}}", ["must be 10 to 14"], id="C11-cost-17"
        ),
        pytest.param(
            f'basic_auth_users: {{"a:b": {HASH}}}', ["basic_auth_users: a name with a colon"], id="name-colon"
        ),
        pytest.param(f'basic_auth_users: {{"a\\x07": {HASH}}}', ["a name with a colon or a control"], id="name-bell"),
        pytest.param(f'basic_auth_users: {{"": {HASH}}}', ["basic_auth_users: is not known"], id="name-empty"),
        pytest.param(
            f'basic_auth_users: {{"{HASH}": alice}}', ["basic_auth_users: must be a bcrypt"], id="name-is-hash"
        ),
        # All at once, in order.
        pytest.param(
            "http_server_config:\n  http2: 1\nbasic_auth_users:\n  a: b\nrate_limit:\n  burst: x\n  brust: 1\n" + PAIR,
            ["2:3: http_", "4:3: basic_", "6:3: rate_limit.burst", "7:3: rate_limit.brust: is not known; did you mean"],
            id="all",
        ),
    ],
)
@pytest.mark.fault("C01", "C09", "C11", "C12")
def test_a_wrong_file_is_refused_with_every_place_and_reason(folder: Path, text: str, wanted: list[str]) -> None:
    found = problems(folder, text)
    assert len(found) == len(wanted), found
    for problem, words in zip(found, wanted, strict=True):
        assert words in problem


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"web\.yml: can not be read: No such file"):
        read(tmp_path / "web.yml")


# Certificates and keys.


def garbage(_: Authority, folder: Path) -> None:
    (folder / "server.crt").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


def swapped(_: Authority, folder: Path) -> None:
    (folder / "server.crt").rename(folder / "other")
    (folder / "server.key").rename(folder / "server.crt")
    (folder / "other").rename(folder / "server.key")


def no_key(_: Authority, folder: Path) -> None:
    (folder / "server.key").write_bytes((folder / "server.crt").read_bytes())


def other_key(authority: Authority, folder: Path) -> None:
    (folder / "server.key").write_bytes(authority.issue("other", key="rsa").key.read_bytes())


def other_kind_of_key(authority: Authority, folder: Path) -> None:
    (folder / "server.key").write_bytes(authority.issue("other", key="ec").key.read_bytes())


def encrypted(_: Authority, folder: Path) -> None:
    openssl("pkcs8", "-topk8", "-in", "server.key", "-out", "e", "-passout", f"pass:{PASSWORD}", cwd=folder)
    (folder / "e").rename(folder / "server.key")


def encrypted_of_old(_: Authority, folder: Path) -> None:
    options = ("-aes128", "-traditional", "-passout", f"pass:{PASSWORD}")
    openssl("rsa", "-in", "server.key", "-out", "e", *options, cwd=folder)
    (folder / "e").rename(folder / "server.key")


def issued(**how: str) -> Callable[[Authority, Path], None]:
    return lambda authority, folder: install(authority.issue("changed", **how), folder)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        pytest.param(garbage, "2:3: tls_server_config.cert_file: holds no certificate", id="C09-garbage"),
        pytest.param(swapped, "2:3: tls_server_config.cert_file: holds no certificate", id="C09-swapped"),
        pytest.param(no_key, "3:3: tls_server_config.key_file: holds no private key", id="C09-no-key"),
        pytest.param(other_key, "key_file: does not belong to the certificate", id="C09-mismatched"),
        pytest.param(other_kind_of_key, "key_file: does not belong to the certificate", id="C09-mismatched-kind"),
        pytest.param(encrypted, "key_file: is encrypted", id="C09-encrypted"),
        pytest.param(encrypted_of_old, "key_file: is encrypted", id="C09-encrypted-traditional"),
        pytest.param(
            issued(until="2021"), "cert_file: is refused by clients: certificate has expired", id="C09-expired"
        ),
        pytest.param(issued(since="2039"), "refused by clients: certificate is not yet valid", id="C09-not-yet"),
        pytest.param(issued(usage="clientAuth"), "refused by clients: unsuitable certificate purpose", id="C09-usage"),
        pytest.param(issued(key="weak"), "cert_file: is refused: ee key too small", id="C09-weak"),
        pytest.param(issued(key="odd"), "cert_file: is of no use here: no shared cipher", id="C09-odd-curve"),
    ],
)
@pytest.mark.fault("C09")
def test_a_certificate_or_key_of_no_use_is_refused(
    authority: Authority, folder: Path, change: Callable[[Authority, Path], None], wanted: str
) -> None:
    change(authority, folder)
    (problem,) = problems(folder, PAIR)
    assert wanted in problem


def test_a_certificate_that_no_suite_fits_is_refused(folder: Path) -> None:
    suite = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
    (problem,) = problems(folder, f"{PAIR}  cipher_suites: [{suite}]\n  max_version: TLS12\n")
    assert "cert_file: is of no use here: no shared cipher" in problem


def test_a_machine_without_room_is_told_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "memfd_create", full)
    assert problems(folder, PAIR) == ["2:3: tls_server_config.cert_file: can not be used: Too many open files"]


def test_names_of_a_certificate_are_written_as_everybody_does() -> None:
    kinds = (("DNS", "a.example"), ("IP Address", "0:0:0:0:0:0:0:1\n"), ("URI", "spiffe://x"), ("email", "a@b"))
    assert names({"subjectAltName": kinds}) == {"a.example", "::1", "spiffe://x", "a@b"}
    assert names({}) == names(None) == set()


def test_revocations_beside_the_authority_are_heeded(authority: Authority, folder: Path) -> None:
    assert not flags(configured(folder, PAIR + CA + STRICT)) & ssl.VERIFY_CRL_CHECK_LEAF
    (folder / "ca.crt").write_text(authority.certificate.read_text() + authority.revoked())
    assert flags(configured(folder, PAIR + CA + STRICT)) & ssl.VERIFY_CRL_CHECK_LEAF


def flags(config: WebConfig) -> ssl.VerifyFlags:
    assert config.tls
    return config.tls.verify_flags
