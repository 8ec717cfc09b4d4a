"""docs/security.md: the files that it shows are accepted, and what it says is refused is."""

import re
import shutil
import ssl
from pathlib import Path

import bcrypt
import pytest
from pki import Authority
from servers import ROOT

from exporter.errors import SettingsError
from exporter.web_config import read

PAGE = (ROOT / "docs/security.md").read_text()
PASSWORD, CERTIFICATE = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The path of a file, with what the page names beside it."""
    authority = Authority(tmp_path, "authority")
    server = authority.issue("server", sans="DNS:localhost")
    shutil.copy(server.certificate, tmp_path / "server.crt")
    shutil.copy(server.key, tmp_path / "server.key")
    shutil.copy(authority.certificate, tmp_path / "prometheus-ca.crt")
    return tmp_path / "web.yml"


def test_the_password_of_the_page_is_the_one_that_it_says(file: Path) -> None:
    file.write_text(PASSWORD)
    config = read(file)
    assert config.tls
    assert config.tls.minimum_version == ssl.TLSVersion.TLSv1_2
    assert bcrypt.checkpw(b"secret", config.users["prometheus"].encode())


def test_the_client_certificate_of_the_page_is_asked_for(file: Path) -> None:
    file.write_text(CERTIFICATE)
    config = read(file)
    assert config.tls
    assert config.tls.verify_mode == ssl.CERT_REQUIRED
    assert config.sans == {"prometheus.example.com"}


@pytest.mark.parametrize(
    ("there", "instead"),
    [
        ("RequireAndVerifyClientCert", "RequireAnyClientCert"),
        ("RequireAndVerifyClientCert", "RequireClientCert"),
        ("client_allowed_sans", "min_version: TLS11\n  client_allowed_sans"),
        ("client_allowed_sans", "curve_preferences: [CurveP256, X25519]\n  client_allowed_sans"),
        ("client_allowed_sans", "cipher_suites: [TLS_RSA_WITH_AES_128_CBC_SHA]\n  client_allowed_sans"),
    ],
)
def test_what_the_page_says_is_refused_is(file: Path, there: str, instead: str) -> None:
    file.write_text(CERTIFICATE.replace(there, instead))
    with pytest.raises(SettingsError):
        read(file)


@pytest.mark.parametrize("hash_", ["secret", "$2b$09$", "$2b$15$"])
def test_a_password_in_the_clear_or_of_another_cost_is_refused(file: Path, hash_: str) -> None:
    file.write_text(PASSWORD.replace("$2b$10$", hash_))
    with pytest.raises(SettingsError, match="hash"):
        read(file)
