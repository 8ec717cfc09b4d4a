"""The web configuration file: what is accepted, authentication, TLS, and reload."""

import asyncio
import base64
import itertools
import os
import shutil
import ssl
import time
import traceback
from asyncio.subprocess import DEVNULL
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_clock import fake_time, wall
from pki import client_context, openssl, shared_authority
from structlog.testing import capture_logs
from web_server import HASH, PASSWORD, TLS, USERS, ask, connection, get, install, serve_with

from exporter.errors import SettingsError
from exporter.web.auth import MAX_VERIFICATIONS
from exporter.web.config import load

Change = Callable[[Path], object]
BOB = f"basic_auth_users:\n  bob dylan: {HASH.replace('$2b$', '$2y$')}\n"
HEADERS = "http_server_config: {headers: {X-Frame-Options: deny, X-XSS-Protection: ''}}\n"
CA = "  client_ca_file: ca.crt\n"
STRICT = "  client_auth_type: RequireAndVerifyClientCert\n"
OPTIONAL = "  client_auth_type: VerifyClientCertIfGiven\n"
NAMED = f"{TLS}{CA}{STRICT}  client_allowed_sans: [a.example, NAME]\n"
SANS = "DNS:prometheus.example,URI:spiffe://example/prometheus"


def problems_of(folder: Path, text: str, change: Change = install) -> list[str]:
    """Return the problems of a file, without its path; none of them has a secret."""
    install(folder)
    change(folder)
    (folder / "web.yml").write_text(text)
    with pytest.raises(SettingsError) as raised:
        load(folder / "web.yml")
    shown = "".join(traceback.format_exception(raised.value))
    assert [secret for secret in (HASH[7:], PASSWORD, "PRIVATE") if secret in shown] == []
    return [each.removeprefix(f"{folder / 'web.yml'}:") for each in raised.value.problems]


PROBLEMS = {
    "": " cannot be read: empty file",
    "rate_limit: {interval: 0, burst: 0}": "1: unknown or unsupported key",
    f"{HASH}: {{x: y}}": "1: unknown",
    "tls_server_config:": "1: tls_server_config: is empty",
    TLS.replace("server.crt", "."): "2: tls_server_config.cert_file: cannot be read: ",
    TLS.replace("server.k", "x"): "3: tls_server_config.key_file: cannot be read: ",
    f"{TLS}  cipher_suites: [x]": "4: tls_server_config: unknown",
    f"{TLS}  min_version: TLS10": "4: tls_server_config.min_version: ",
    f"{TLS}  min_version: TLS13\n  max_version: TLS12": "1: tls_server_config: ",
    f"{TLS}  client_auth_type: RequireAnyClientCert": "4: tls_server_config.client_auth_type: ",
    TLS + CA: "1: tls_server_config: client_ca_file requires client_auth_type",
    TLS + STRICT: "1: tls_server_config: client_ca_file requires client_auth_type",
    TLS + STRICT + CA.replace("ca.crt", "server.key"): "1: tls_server_config: ",
    f"{TLS}  client_allowed_sans: [x]": "1: tls_server_config: client_allowed_sans requires",
    f"{TLS}{CA}{STRICT}  client_allowed_sans: []": "6: tls_server_config.client_allowed_sans: ",
    f"http_server_config: {{headers: {{{PASSWORD}: x}}}}": "1: http_server_config.headers: ",
    'http_server_config: {headers: {X-XSS-Protection: "\\r"}}': "1: http_server_config.headers: ",
    f"basic_auth_users: {{'a:b': {HASH}}}": "1: basic_auth_users: ",
    f"basic_auth_users: {{x: {PASSWORD}}}": "1: basic_auth_users: must be a bcrypt hash",
    USERS.replace("$10", "$09"): "2: basic_auth_users: must be a bcrypt hash of cost 10 to 14",
    USERS.replace("$10", "$15"): "2: basic_auth_users: must be a bcrypt hash of cost 10 to 14",
    USERS.replace("xVi", "xV"): "2: basic_auth_users: must be a bcrypt hash",
}


@pytest.mark.parametrize(("text", "expected"), PROBLEMS.items(), ids=itertools.count())
def test_an_invalid_file_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    """The ids of the cases are numbers, because the texts contain secrets."""
    [problem] = problems_of(tmp_path, text)
    assert problem.startswith(expected)


def test_all_problems_are_reported(tmp_path: Path) -> None:
    text = "http_server_config:\n  http2: 1\nbasic_auth_users: {x: y}\nx: y\n"
    assert [problem[:2] for problem in problems_of(tmp_path, text)] == ["2:", "3:", "4:"]


def encrypt(folder: Path) -> None:
    password = ("-passout", f"pass:{PASSWORD}")
    openssl("pkcs8", "-topk8", "-in", "server.key", "-out", "new", *password, cwd=folder)
    (folder / "new").rename(folder / "server.key")


CERTIFICATES: list[Change] = [
    encrypt,
    lambda folder: shutil.copy(shared_authority("other").identity.key, folder / "server.key"),
    lambda folder: install(folder, shared_authority().issue("new", usage="clientAuth")),
    lambda folder: install(folder, shared_authority().issue("new", until=2021)),
]


@pytest.mark.parametrize("change", CERTIFICATES)
def test_an_invalid_certificate_is_refused(tmp_path: Path, change: Change) -> None:
    [problem] = problems_of(tmp_path, TLS, change)
    assert problem.startswith("1: tls_server_config: ")


async def status(url: str, *login: str, tls: ssl.SSLContext | None = None) -> int:
    """Return the status of the reply; 0 if the connection is refused."""
    try:
        return (await get(url, "/", *(("Authorization", each) for each in login), tls=tls)).status
    except (OSError, asyncio.IncompleteReadError):
        return 0


def login(user: str, password: str = PASSWORD, colon: str = ":") -> str:
    credentials = f"{user}{colon}{password}".encode("utf-8", "surrogateescape")
    return f"Basic {base64.b64encode(credentials).decode()}"


GOOD, UNKNOWN_USER = login("alice"), login("mallory")
INVALID = (
    *(login("alice", "x"), UNKNOWN_USER, login("alice", "x" + "ä" * 36)),  # 73 bytes
    *(login("alice", f"{PASSWORD}\0"), login("alice", colon=""), login("\udcff", "\udcff")),
    *(GOOD.replace("Basic", "Bearer"), f"{GOOD}, {GOOD}", GOOD[:-1], "", "Basic", "Basic \udcff"),
)


@fake_time
async def test_missing_and_invalid_credentials_get_401(tmp_path: Path) -> None:
    with capture_logs() as logs:
        async with serve_with(tmp_path, USERS) as url:
            for each in INVALID:
                start = time.process_time()
                reply = await get(url, "/metrics", ("Authorization", each))
                assert reply.status == 401, each
                assert each != UNKNOWN_USER or time.process_time() - start > 0.01, "uses bcrypt too"
                assert reply.headers["www-authenticate"].startswith('Basic realm="')
                await asyncio.sleep(1.0)
    assert [event["event"] for event in logs] == ["basic_auth_without_tls"]


@fake_time
async def test_a_flood_of_wrong_passwords_does_not_affect_known_clients(tmp_path: Path) -> None:
    wrong, good = [login("alice", "wrong"), UNKNOWN_USER], ("Authorization", GOOD)
    async with serve_with(tmp_path, USERS) as url, connection(url) as streams:
        assert await status(url, GOOD) == 200
        await asyncio.sleep(1.0)
        flood = [asyncio.create_task(status(url, each)) for each in wrong * 50]
        known = 0
        while not all(task.done() for task in flood):
            assert (await ask(streams, "/", good)).status == 200
            known += 1
        found = Counter(task.result() for task in flood)
        assert found == {401: MAX_VERIFICATIONS, 429: 100 - MAX_VERIFICATIONS}
        assert known > 2 * MAX_VERIFICATIONS
        await asyncio.sleep(0.9)
        assert (await get(url, "/", ("Authorization", wrong[0]))).headers["retry-after"] == "1"
        await asyncio.sleep(0.2)
        assert await status(url, wrong[0]) == 401


S_CLIENT = {
    "-tls1_1 -cipher ALL:@SECLEVEL=0": 1,
    "-tls1_2 -cipher AES128-GCM-SHA256:AES128-SHA:DHE-RSA-AES128-GCM-SHA256": 1,
    "-tls1_2 -cipher ECDHE-RSA-AES256-SHA384:NULL-SHA256:ADH-AES128-GCM-SHA256:@SECLEVEL=0": 1,
    "-tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256": 0,
    "-tls1_3 -groups ffdhe2048": 1,
    "-tls1_3": 0,
}


@pytest.mark.parametrize("options", S_CLIENT)
async def test_insecure_and_slow_tls_parameters_are_refused(tmp_path: Path, options: str) -> None:
    async with serve_with(tmp_path, TLS) as url:
        command = ("openssl", "s_client", "-connect", url.removeprefix("https://"))
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), DEVNULL)
        client = await asyncio.create_subprocess_exec(*command, *options.split(), **pipes)
        assert await client.wait() == S_CLIENT[options]


@pytest.fixture(scope="module")
def clients() -> dict[str, ssl.SSLContext]:
    issue, other = shared_authority().issue, shared_authority("other")
    identities = {"none": None, "self-signed": other.identity, "other-ca": other.issue("other")}
    identities["expired"] = issue("expired", until=2021)
    identities["prometheus"] = issue("prometheus", sans=SANS, usage="clientAuth")
    return {name: client_context(identity) for name, identity in identities.items()}


ACCEPTED: list[tuple[str, dict[str, int]]] = [
    (TLS + CA + STRICT, {"prometheus": 200}),
    (TLS + CA + OPTIONAL, {"prometheus": 200, "none": 200}),
    (NAMED.replace("NAME", '"spiffe://example/prometheus"'), {"prometheus": 200}),
    (NAMED.replace("NAME", "prometheus"), {"prometheus": 403}),
]


@pytest.mark.parametrize(("text", "accepted"), ACCEPTED)
async def test_clients_need_a_certificate_of_the_ca_and_an_allowed_name(
    tmp_path: Path, clients: dict[str, ssl.SSLContext], text: str, accepted: dict[str, int]
) -> None:
    async with serve_with(tmp_path, text) as url:
        found = {name: await status(url, tls=tls) for name, tls in clients.items()}
    assert found == dict.fromkeys(clients, 0) | accepted


@fake_time
async def test_changed_files_are_used(tmp_path: Path, clients: dict[str, ssl.SSLContext]) -> None:
    file, tls, good = tmp_path / "web.yml", clients["none"], clients["prometheus"]
    bob = login("bob dylan").replace("Basic", "bASIC")
    async with serve_with(tmp_path, TLS + USERS) as url, connection(url, tls) as old:
        with capture_logs() as logs:
            install(tmp_path, shared_authority().issue("new", sans="DNS:localhost"))
            await asyncio.sleep(1.0)
            async with connection(url, tls) as new:
                certificates = [each[1].get_extra_info("peercert") for each in (old, new)]
        assert certificates[0] != certificates[1]
        assert (await ask(old, "/", ("Authorization", GOOD))).status == 200
        await asyncio.sleep(0.5)
        file.write_text(TLS + HEADERS + BOB)
        os.utime(file, (wall(), wall()))
        await asyncio.sleep(0.6)
        assert await status(url, GOOD, tls=tls) == 200, "the file may not be complete"
        await asyncio.sleep(1.0)
        reply = await get(url, "/", ("Authorization", bob), tls=tls)
        assert (reply.status, await status(url, GOOD, tls=tls)) == (200, 401)
        assert {"x-frame-options", "x-xss-protection"} & reply.headers.keys() == {"x-frame-options"}
        file.write_text(TLS + CA + STRICT + BOB.replace("abc", "xyz"))
        await asyncio.sleep(1.0)
        assert (await status(url, tls=tls), await status(url, bob, tls=good)) == (0, 401)
        (tmp_path / "ca.crt").write_bytes(shared_authority("other").certificate.read_bytes())
        await asyncio.sleep(1.0)
        assert await status(url, tls=good) == 0
    assert [event["event"] for event in logs] == ["web_config_reloaded"]


@fake_time
async def test_an_invalid_change_is_logged_once_and_not_applied(tmp_path: Path) -> None:
    tls, text, file = client_context(), TLS + USERS, tmp_path / "web.yml"
    changes = {
        "web.yml:5: basic_auth_users": lambda: file.write_text(text.replace("$10$", "$04$")),
        "cannot be read": lambda: (file.write_text(text), (tmp_path / "server.key").unlink()),
        "turning TLS on or off": lambda: (file.write_text(USERS), install(tmp_path)),
    }
    async with serve_with(tmp_path, text) as url:
        for problem, change in changes.items():
            change()
            with capture_logs() as logs:
                for _ in range(3):
                    await asyncio.sleep(1.0)
                    assert await status(url, GOOD, tls=tls) == 200
            assert [event["event"] for event in logs] == ["web_config_not_reloaded"]
            assert problem in logs[0]["error"]
