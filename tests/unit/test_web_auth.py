"""Authentication of scrapers, TLS, and reload of the web configuration file."""

import asyncio
import base64
import ssl
import time
from asyncio.subprocess import DEVNULL
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import bcrypt
import pytest
import web_server
from fake_clock import fake_time
from pki import Identity, client_context, shared_authority
from structlog.testing import capture_logs
from web_server import HASH, PASSWORD, TLS, USERS, ask, connection, install

from exporter.clock import Clock
from exporter.web.auth import MAX_VERIFICATIONS, Authenticator

BOB = f"basic_auth_users:\n  bob: {HASH}\n"
CLIENTS = f"{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n"
OPTIONAL = CLIENTS.replace("RequireAndVerifyClientCert", "VerifyClientCertIfGiven")
NAMES = f"{CLIENTS}  client_allowed_sans: [a.example, prometheus.example]\n"
Tls = ssl.SSLContext
SANS = "DNS:prometheus.example,IP:::1,email:me@example.org,URI:spiffe://example/prometheus"


class Served:
    """A server with a web configuration file, and the clock of its authenticator."""

    def __init__(self, folder: Path, text: str) -> None:
        self.folder, self.url = folder, ""
        self.now = 1000.0  # monotonic
        self.age = 2.0  # seconds since the files changed, for the authenticator
        (folder / "web.yml").write_text(text)
        clock = Clock(lambda: self.now, lambda: time.time() + self.age)
        self.auth = Authenticator(folder / "web.yml", clock)

    def change(self, text: str | None = None, identity: Identity | None = None) -> None:
        """Change the files, and let the authenticator check them at the next request."""
        if text is not None:
            (self.folder / "web.yml").write_text(text)
        if identity:
            install(self.folder, identity)
        self.now += 1.0

    async def get(self, *logins: str, tls: Tls | None = None) -> web_server.Reply:
        headers = (("Authorization", login) for login in logins)
        return await web_server.get(self.url, "/-/healthy", *headers, tls=tls)

    async def status(self, *logins: str, tls: Tls | None = None) -> int:
        """Return the status of the reply; 0 if the connection is refused."""
        try:
            return (await self.get(*logins, tls=tls)).status
        except (OSError, asyncio.IncompleteReadError):
            return 0


@asynccontextmanager
async def serve(folder: Path, text: str) -> AsyncIterator[Served]:
    served = Served(folder, text)
    async with web_server.serve(auth=served.auth) as served.url:
        yield served


def login(user: str, password: str = PASSWORD, *, form: str = "{}:{}") -> str:
    credentials = form.format(user, password).encode("utf-8", "surrogateescape")
    return f"Basic {base64.b64encode(credentials).decode()}"


GOOD = login("alice")
INVALID: dict[str, tuple[str, ...]] = {
    "none": (), "wrong-password": (login("alice", "x"),), "unknown-user": (login("mallory"),),
    "73-bytes": (login("alice", "x" * 73),), "nul": (login("alice", f"{PASSWORD}\0"),),
    "72-characters": (login("alice", "ä" * 72),),
    "bearer": (GOOD.replace("Basic", "Bearer"),), "empty": ("Basic",), "list": (f"{GOOD}, {GOOD}",),
    "not-base64": ("Basic !!!!",), "truncated-base64": (GOOD[:-1],), "no-user": (login(""),),
    "no-colon": (login("alice", form="{}"),), "not-utf-8": (login("\udcff", "\udcff"),),
    "not-ascii": ("Basic \udcff\udcfe",), "7-kilobytes": (login("alice", "x" * 5000),),
}  # fmt: skip


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Passwords that were verified with bcrypt, in order."""
    passwords: list[bytes] = []
    check = bcrypt.checkpw
    monkeypatch.setattr(bcrypt, "checkpw", lambda p, h: passwords.append(p) or check(p, h))
    return passwords


@pytest.mark.parametrize("logins", INVALID.values(), ids=INVALID)
async def test_invalid_credentials_get_401(tmp_path: Path, logins: tuple[str, ...]) -> None:
    with capture_logs() as logs:
        async with serve(tmp_path, USERS) as served:
            for cached in (False, True):
                assert not cached or await served.status(GOOD) == 200
                reply = await served.get(*logins)
                assert reply.status == 401
                assert reply.headers["www-authenticate"].startswith('Basic realm="')
    assert [event["event"] for event in logs] == ["basic_auth_without_tls"]


async def test_names_and_passwords_can_have_any_characters(tmp_path: Path) -> None:
    password = "ключ:" + "x" * 63
    hash_ = bcrypt.hashpw(password.encode(), bcrypt.gensalt(10)).replace(b"$2b", b"$2y")
    async with serve(tmp_path, f"basic_auth_users: {{Jürgen: {hash_.decode()}}}") as served:
        assert await served.status(login("Jürgen", password).replace("Basic ", "bAsIc  ")) == 200


async def test_correct_logins_are_verified_once(tmp_path: Path, verified: list[bytes]) -> None:
    users = ("alice", PASSWORD, 200, 1), ("alice", "x", 401, 2), ("mallory", PASSWORD, 401, 2)
    async with serve(tmp_path, USERS) as served:
        for user, password, status, checks in users:
            verified.clear()
            for _ in range(2):
                assert await served.status(login(user, password)) == status
            assert len(verified) == checks


@fake_time
async def test_five_logins_a_second_are_verified(tmp_path: Path, verified: list[bytes]) -> None:
    wrong = login("alice", "wrong")
    async with serve(tmp_path, USERS) as served, connection(served.url) as streams:
        assert await served.status(GOOD) == 200
        await asyncio.sleep(1.0)
        flood = [asyncio.create_task(served.get(wrong)) for _ in range(100)]
        known = 0
        while not all(task.done() for task in flood):
            assert (await ask(streams, "/", ("Authorization", GOOD))).status == 200
            known += 1
        replies = [task.result() for task in flood]
        found = Counter((each.status, each.headers.get("retry-after")) for each in replies)
        assert found == {(401, None): MAX_VERIFICATIONS, (429, "1"): 100 - MAX_VERIFICATIONS}
        assert len(verified) == 1 + MAX_VERIFICATIONS
        assert known > 2 * MAX_VERIFICATIONS
        assert await served.status(wrong) == 429
        await asyncio.sleep(1.0)
        assert await served.status(wrong) == 401


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    install(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def prometheus() -> Tls:
    return client_context(shared_authority().issue("prometheus", sans=SANS, usage="clientAuth"))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize(
    ("version", "ciphers", "status"),
    [
        ("TLSv1_1", "ALL:@SECLEVEL=0", 0),
        ("TLSv1_2", "AES128-GCM-SHA256:AES128-SHA:DHE-RSA-AES128-GCM-SHA256", 0),
        ("TLSv1_2", "ECDHE-RSA-AES256-SHA384:ECDHE-RSA-AES128-SHA", 0),
        ("TLSv1_2", "NULL-SHA256:ADH-AES128-GCM-SHA256:@SECLEVEL=0", 0),
        ("TLSv1_2", "ECDHE-RSA-AES128-GCM-SHA256", 200),
        ("TLSv1_2", "ECDHE-RSA-CHACHA20-POLY1305", 200),
        ("TLSv1_3", "DEFAULT", 200),
    ],
)
async def test_insecure_tls_fails(folder: Path, version: str, ciphers: str, status: int) -> None:
    client = client_context()
    client.set_ciphers(ciphers)
    client.minimum_version = client.maximum_version = ssl.TLSVersion[version]
    async with serve(folder, TLS) as served:
        assert await served.status(tls=client) == status


async def test_finite_field_key_exchange_fails(folder: Path) -> None:
    async with serve(folder, TLS) as served:
        address = served.url.removeprefix("https://")
        command = ("openssl", "s_client", "-groups", "ffdhe2048", "-connect", address)
        client = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stderr=DEVNULL)
        assert await client.wait() == 1


async def test_clients_need_a_certificate_of_the_ca(folder: Path, prometheus: Tls) -> None:
    other, authority = shared_authority("other"), shared_authority()
    refused = [other.identity, other.issue("other"), authority.issue("expired", until=2021)]
    refused += [authority.issue("server-only", usage="serverAuth")]
    for text in (CLIENTS, OPTIONAL):
        async with serve(folder, text) as served:
            for identity in refused:
                assert not await served.status(tls=client_context(identity))
            assert await served.status(tls=client_context()) == (0 if text == CLIENTS else 200)
            assert await served.status(tls=prometheus) == 200


async def test_clients_need_a_name(folder: Path, prometheus: Tls) -> None:
    allowed = ("prometheus.example", "me@example.org", "spiffe://example/prometheus")
    for name in (*allowed, "example", "prometheus"):
        async with serve(folder, NAMES.replace("prometheus.example", f'"{name}"')) as served:
            assert await served.status(tls=prometheus) == (200 if name in allowed else 403)


async def test_changed_certificates_are_used(folder: Path, prometheus: Tls) -> None:
    tls = client_context()
    async with serve(folder, TLS) as served, connection(served.url, tls) as old:
        assert (await ask(old, "/")).status == (await ask(old, "/")).status == 200
        with capture_logs() as logs:
            served.change(identity=shared_authority().issue("new", sans="DNS:localhost"))
            async with connection(served.url, tls) as new:
                names = [each[1].get_extra_info("peercert")["serialNumber"] for each in (old, new)]
        assert names[0] != names[1]
        assert [event["event"] for event in logs] == ["web_config_reloaded"]
        assert (await ask(old, "/")).status == 200
        served.change(CLIENTS)
        assert not await served.status(tls=client_context())
        assert await served.status(tls=prometheus) == 200
        (folder / "ca.crt").write_bytes(shared_authority("other").certificate.read_bytes())
        served.change()
        assert not await served.status(tls=prometheus)


async def test_users_and_headers_change_with_the_file(tmp_path: Path) -> None:
    bob, new = login("bob"), bcrypt.hashpw(b"new", bcrypt.gensalt(10)).decode()
    headers = "http_server_config: {headers: {X-Frame-Options: deny}}\n"
    async with serve(tmp_path, USERS) as served:
        assert await served.status(GOOD) == 200
        served.age = 0.0
        served.change(BOB)
        assert "bob" not in served.auth.config().users  # the file is being written
        served.age = 2.0
        assert "bob" not in served.auth.config().users  # files are checked once a second
        served.now += 1.0
        assert [await served.status(GOOD), await served.status(bob)] == [401, 200]
        served.change(headers + BOB.replace(HASH, new))
        assert [await served.status(bob), await served.status(login("bob", "new"))] == [401, 200]
        for reply in (await served.get(), await served.get(login("bob", "new"))):
            assert reply.headers["x-frame-options"] == "deny"


async def test_an_invalid_change_is_logged_once_and_not_applied(folder: Path) -> None:
    authority = shared_authority()
    expired = authority.issue("expired", sans="DNS:localhost", until=2021)
    good = authority.issue("good", sans="DNS:localhost")
    tls = client_context()
    with capture_logs() as logs:
        async with serve(folder, TLS + USERS) as served:
            served.change(TLS + USERS.replace("$10$", "$04$"))
            for _ in range(3):
                assert await served.status(GOOD, tls=tls) == 200
                served.now += 1.0
            for text, identity in ((TLS + USERS, expired), (None, good)):
                served.change(text, identity)
                assert await served.status(GOOD, tls=tls) == 200
    events = [event["event"] for event in logs]
    assert events == ["web_config_not_reloaded", "web_config_not_reloaded", "web_config_reloaded"]
    assert "web.yml:5: basic_auth_users" in logs[0]["error"]
    assert "expired" in logs[1]["error"]


@pytest.mark.parametrize(("before", "after"), [(TLS + BOB, BOB), (BOB, TLS + BOB)])
def test_tls_is_not_turned_on_or_off(folder: Path, before: str, after: str) -> None:
    served = Served(folder, before)
    in_effect = served.auth.config()
    with capture_logs() as logs:
        served.change(after)
        assert served.auth.config() is in_effect
    assert [event["event"] for event in logs] == ["web_config_not_reloaded"]
