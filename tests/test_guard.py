"""Nobody but who may ask gets an answer, over real TLS and HTTP, and a change of the files disturbs no scrape."""

import asyncio
import base64
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import bcrypt
import pytest
from pki import Authority, Identity, trusts
from servers import Reply, finished, logging_as, read_reply, until

from exporter import guard as room
from exporter import server as connections
from exporter.clock import Clock
from exporter.errors import SettingsError
from exporter.guard import AT_ONCE, Guard
from exporter.server import Answer, Request, Server
from exporter.server import said as spoken

PASSWORD = "canary-5vTz0"
HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()
USERS = f"basic_auth_users:\n  alice: {HASH}\n"
PAIR = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
MUTUAL = f"{PAIR}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n"


@dataclass
class Door:
    """A server with a guard on it."""

    folder: Path
    now: float = 1000.0
    """What the guard's monotonic clock says; it stands still."""
    age: float = 2.0
    """Seconds by which the guard is later than the files."""
    readings: list[bool] = field(default_factory=list)
    port: int = 0

    def __post_init__(self) -> None:
        clock = Clock(lambda: self.now, lambda: time.time() + self.age)
        self.guard = Guard(self.folder / "web.yml", clock, self.readings.append)

    def change(self, text: str | None = None, identity: Identity | None = None) -> None:
        """Change the files, and let time pass until they are looked at again."""
        if text is not None:
            (self.folder / "web.yml").write_text(text)
        if identity:
            install(identity, self.folder)
        self.now += 1.0

    async def get(self, *authorization: str, tls: ssl.SSLContext | None = None) -> Reply:
        """Send one request over a connection of its own."""
        async with self.connection(tls) as (reader, writer):
            return await scrape(reader, writer, *authorization)

    @asynccontextmanager
    async def connection(
        self, tls: ssl.SSLContext | None = None
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        name = "localhost" if tls else None
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=tls, server_hostname=name)
        try:
            yield reader, writer
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def scrape(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *authorization: str) -> Reply:
    lines = "".join(f"Authorization: {value}\r\n" for value in authorization)
    writer.write(f"GET / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode("utf-8", "surrogateescape"))
    return await read_reply(reader)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


GOOD = basic("alice", PASSWORD)


@asynccontextmanager
async def guarded(folder: Path, text: str) -> AsyncIterator[Door]:
    (folder / "web.yml").write_text(text)
    door = Door(folder)

    async def answer(request: Request) -> Answer:
        refused = await door.guard.authorize(request)
        return refused if refused is not None else spoken(200, "metrics\n")

    listening = Server(answer, lambda: door.guard.headers)
    _, door.port = await listening.listen("127.0.0.1", 0, door.guard.tls)
    try:
        yield door
    finally:
        await listening.close(0.1)
        door.guard.close()


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every password that is hashed, in order."""
    passwords: list[bytes] = []
    check = bcrypt.checkpw

    def counting(password: bytes, hash_: bytes) -> bool:
        passwords.append(password)
        return check(password, hash_)

    monkeypatch.setattr(room.bcrypt, "checkpw", counting)
    return passwords


# Users.


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param((), id="X01-none"),
        pytest.param((basic("alice", "wrong"),), id="X01-wrong"),
        pytest.param((basic("mallory", PASSWORD),), id="X01-unknown-with-a-good-password"),
        pytest.param((basic("mallory", "fakepassword"),), id="X01-fakepassword"),
        pytest.param((basic("", PASSWORD),), id="X01-no-name"),
        pytest.param((basic("ALICE", PASSWORD),), id="X01-case"),
        pytest.param((basic("alice", ""),), id="X01-no-password"),
        pytest.param((basic("alice", f"{PASSWORD} "),), id="X01-space"),
        pytest.param((basic("alice", "x" * 73),), id="C11-73-bytes"),
        pytest.param((basic("alice", "ä" * 36 + "b"),), id="C11-73-bytes-of-37-characters"),
        pytest.param((GOOD, GOOD), id="X05-two"),
        pytest.param((GOOD, "Bearer x"), id="X05-two-kinds"),
        pytest.param(("Bearer " + GOOD.split()[1],), id="X05-bearer"),
        pytest.param(("Basic",), id="X05-nothing"),
        pytest.param(("Basic !!!!",), id="X05-no-base64"),
        pytest.param((GOOD[:-1],), id="X05-base64-cut"),
        pytest.param((GOOD + ", " + GOOD,), id="X05-list"),
        pytest.param(("Basic " + base64.b64encode(b"alice").decode(),), id="X05-no-colon"),
        pytest.param((basic("alice", PASSWORD + "\0"),), id="X05-nul"),
        pytest.param((basic("alice\n", PASSWORD),), id="X05-line-end"),
        pytest.param(("Basic " + base64.b64encode(b"alice:\xff").decode(),), id="X05-no-utf-8"),
        pytest.param(("Basic \udcff\udcfe",), id="X05-raw-bytes"),
        pytest.param((basic("alice", PASSWORD + "x" * 800),), id="X05-1-kilobyte"),
        pytest.param((basic("alice", "x" * 5000),), id="X05-7-kilobytes"),
        pytest.param((GOOD.replace(" ", " " * 2000),), id="X05-spaces"),
    ],
)
@pytest.mark.fault("X01", "X05", "C11")
async def test_who_does_not_prove_to_be_a_user_gets_401_and_learns_nothing(
    tmp_path: Path, authorization: tuple[str, ...]
) -> None:
    with logging_as() as said:
        async with guarded(tmp_path, USERS) as door:
            for warm in (False, True):
                if warm:
                    assert (await door.get(GOOD)).status == 200
                reply = await door.get(*authorization)
                assert reply.status == 401
                assert reply.headers["www-authenticate"] == 'Basic realm="thousandeyes-exporter", charset="UTF-8"'
                assert reply.body == b"name and password, please\n"
    assert [line for line in said() if "passwords_in_the_clear" not in line] == []


@pytest.mark.parametrize("prefix", ["$2a$", "$2b$", "$2y$"])
async def test_every_kind_of_bcrypt_hash_lets_its_user_in(tmp_path: Path, prefix: str) -> None:
    async with guarded(tmp_path, USERS.replace("$2b$", prefix)) as door:
        assert (await door.get(GOOD)).body == b"metrics\n"
        assert (await door.get(GOOD.replace("Basic ", "bAsIc  "))).status == 200


async def test_a_name_and_a_password_may_have_any_letters_and_72_bytes(tmp_path: Path) -> None:
    password = "ключ:" + "x" * 63
    hash_ = bcrypt.hashpw(password.encode(), bcrypt.gensalt(10)).decode()
    async with guarded(tmp_path, f"basic_auth_users: {{Jürgen: {hash_}}}") as door:
        assert len(password.encode()) == 72
        assert (await door.get(basic("Jürgen", password))).status == 200
        assert (await door.get(basic("Jürgen", password + "y"))).status == 401


async def test_wrong_and_unknown_users_cost_a_hash_each_time_and_good_ones_one(
    tmp_path: Path, hashed: list[bytes]
) -> None:
    async with guarded(tmp_path, USERS) as door:
        for expected, user, password, status in (
            (1, "alice", PASSWORD, 200),
            (1, "alice", PASSWORD, 200),
            (2, "alice", "wrong", 401),
            (3, "alice", "wrong", 401),
            (4, "mallory", "wrong", 401),
            (5, "mallory", PASSWORD, 401),
            (6, "", "x" * 100, 401),
        ):
            assert (await door.get(basic(user, password))).status == status
            assert len(hashed) == expected
            door.now += 1.0
        assert max(map(len, hashed)) == 72


async def test_what_is_remembered_is_no_password_and_no_more_than_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hashed: list[bytes]
) -> None:
    monkeypatch.setattr(room, "REMEMBERED", 1)
    async with guarded(tmp_path, USERS + f"  bob: {HASH}\n") as door:
        for user in ("alice", "alice", "bob", "alice"):
            assert (await door.get(basic(user, PASSWORD))).status == 200
        assert len(hashed) == 3
        remembered = door.guard._logins._good
        assert [len(key) for key in remembered] == [32]


@pytest.mark.fault("X04")
async def test_200_wrong_logins_at_once_cost_few_hashes_and_a_good_scraper_nothing(
    tmp_path: Path, hashed: list[bytes]
) -> None:
    """X04."""
    async with guarded(tmp_path, USERS) as door:
        began = time.monotonic()
        assert (await door.get(GOOD)).status == 200
        a_hash = time.monotonic() - began
        flood = [asyncio.create_task(door.get(basic("alice", f"wrong-{n}"))) for n in range(200)]
        waited = []
        async with door.connection() as (reader, writer):
            while not all(task.done() for task in flood):
                began = time.monotonic()
                assert (await scrape(reader, writer, GOOD)).status == 200
                waited.append(time.monotonic() - began)
        statuses = [task.result().status for task in flood]
        assert set(statuses) == {401, 429}
        assert statuses.count(401) < AT_ONCE + 10
        assert len(hashed) == 1 + statuses.count(401)
        assert sorted(waited)[len(waited) // 2] < a_hash  # none of them waited for a hash
        late = next(task.result() for task in flood if task.result().status == 429)
        assert late.headers["retry-after"] == "1"


async def test_guesses_are_slowed_down_for_each_address_and_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hashed: list[bytes]
) -> None:
    addresses = count()
    async with guarded(tmp_path, USERS) as door:

        async def wrong() -> int:
            return (await door.get(basic("alice", "wrong"))).status

        assert [await wrong() for _ in range(AT_ONCE + 1)] == [401] * AT_ONCE + [429]
        door.now += 1.0
        assert [await wrong() for _ in range(2)] == [401, 429]
        # From ever new addresses there are five a second.
        monkeypatch.setattr(Request, "remote", property(lambda _: f"192.0.2.{next(addresses)}"))
        door.now += 1.0
        assert [await wrong() for _ in range(AT_ONCE + 1)] == [401] * AT_ONCE + [429]
        # Right ones give back what they took.
        door.now += 0.2
        for n in range(AT_ONCE):
            hashes = len(hashed)
            door.guard._logins._good.clear()
            assert (await door.get(GOOD)).status == 200, n
            assert len(hashed) == hashes + 1


async def test_who_comes_while_too_many_wait_has_to_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with guarded(tmp_path, USERS) as door:
        monkeypatch.setattr(door.guard._logins, "_waiting", AT_ONCE)
        reply = await door.get(GOOD)
        assert (reply.status, reply.headers["retry-after"]) == (429, "1")


async def test_passwords_in_the_clear_are_worth_a_warning(tmp_path: Path) -> None:
    with logging_as() as said:
        async with guarded(tmp_path, USERS):
            pass
    assert "event=passwords_in_the_clear" in said()[0]


async def test_headers_and_a_rate_limit_are_for_everybody(tmp_path: Path) -> None:
    text = "http_server_config: {headers: {X-Frame-Options: deny}}\nrate_limit: {interval: 10s, burst: 2}\n"
    async with guarded(tmp_path, text) as door:
        replies = [await door.get() for _ in range(3)]
        assert [reply.status for reply in replies] == [200, 200, 429]
        assert {reply.headers["x-frame-options"] for reply in replies} == {"deny"}
        assert replies[2].headers["retry-after"] == "10"
        door.now += 10.0
        assert (await door.get()).status == 200
        door.change(text.replace("burst: 2", "burst: 3"))
        assert [(await door.get()).status for _ in range(4)] == [200, 200, 200, 429]
        door.change("http_server_config: {headers: {X-Frame-Options: sameorigin}}")
        assert [(await door.get()).headers["x-frame-options"] for _ in range(4)] == ["sameorigin"] * 4


# TLS.


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"), "authority")


@pytest.fixture(scope="module")
def server(authority: Authority) -> Identity:
    return authority.issue("server", sans="DNS:localhost", key="rsa")


@pytest.fixture
def folder(tmp_path: Path, authority: Authority, server: Identity) -> Path:
    install(server, tmp_path)
    (tmp_path / "ca.crt").write_bytes(authority.certificate.read_bytes())
    return tmp_path


def install(identity: Identity, folder: Path) -> None:
    (folder / "server.crt").write_bytes(identity.certificate.read_bytes())
    (folder / "server.key").write_bytes(identity.key.read_bytes())


def client(authority: Authority, identity: Identity | None = None) -> ssl.SSLContext:
    context = trusts(authority)
    if identity:
        context.load_cert_chain(identity.certificate, identity.key)
    return context


async def s_client(door: Door, *options: str) -> tuple[int, str]:
    code, out, err = await finished("openssl", "s_client", "-connect", f"127.0.0.1:{door.port}", *options)
    return code, out + err


@pytest.mark.parametrize(
    ("options", "spoken"),
    [
        pytest.param("-tls1 -cipher ALL:@SECLEVEL=0", False, id="X06-tls-1.0"),
        pytest.param("-tls1_1 -cipher ALL:@SECLEVEL=0", False, id="X06-tls-1.1"),
        pytest.param("-tls1_2 -cipher AES128-SHA:@SECLEVEL=0", False, id="X06-cbc"),
        pytest.param("-tls1_2 -cipher ECDHE-RSA-AES128-SHA", False, id="X06-ecdhe-cbc"),
        pytest.param("-tls1_2 -cipher ECDHE-RSA-AES256-SHA384", False, id="X06-ecdhe-cbc-sha384"),
        pytest.param("-tls1_2 -cipher AES128-GCM-SHA256", False, id="X06-no-forward-secrecy"),
        pytest.param("-tls1_2 -cipher DHE-RSA-AES128-GCM-SHA256", False, id="X06-dhe"),
        pytest.param("-tls1_2 -cipher NULL-SHA256:@SECLEVEL=0", False, id="X06-null"),
        pytest.param("-tls1_2 -cipher ADH-AES128-GCM-SHA256:@SECLEVEL=0", False, id="X06-anonymous"),
        pytest.param("-tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256", True, id="X06-tls-1.2-aes128"),
        pytest.param("-tls1_2 -cipher ECDHE-RSA-AES256-GCM-SHA384", True, id="X06-tls-1.2-aes256"),
        pytest.param("-tls1_2 -cipher ECDHE-RSA-CHACHA20-POLY1305", True, id="X06-tls-1.2-chacha"),
        pytest.param("-tls1_3", True, id="X06-tls-1.3"),
        pytest.param("-noservername", True, id="X06-no-sni"),
        pytest.param("-servername other.example", True, id="X06-other-sni"),
        pytest.param("-groups P-384", True, id="curve"),
    ],
)
@pytest.mark.fault("X06")
async def test_only_what_is_safe_is_spoken(folder: Path, options: str, spoken: bool) -> None:
    async with guarded(folder, PAIR) as door:
        code, said = await s_client(door, *options.split())
        assert (code == 0) == spoken, said
        assert "written 0 bytes" not in said  # it is not the client that does not want to


@pytest.mark.fault("X06")
async def test_nothing_is_negotiated_twice(folder: Path) -> None:
    """X06."""
    async with guarded(folder, PAIR) as door:
        shell = f"(sleep 0.3; echo R; sleep 0.5) | openssl s_client -connect 127.0.0.1:{door.port} -tls1_2 2>&1"
        _, out, _ = await finished("sh", "-c", shell)
        assert "RENEGOTIATING" in out
        assert "no renegotiation" in out


async def test_versions_suites_and_curve_can_be_narrowed(folder: Path) -> None:
    suites = "  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]\n"
    async with guarded(folder, f"{PAIR}{suites}  max_version: TLS12\n  curve_preferences: [CurveP384]\n") as door:
        assert (await s_client(door))[0] == 0
        for options in ("-tls1_3", "-cipher ECDHE-RSA-AES128-GCM-SHA256", "-groups X25519:P-256"):
            assert (await s_client(door, *options.split()))[0] == 1
        door.change(PAIR + "  min_version: TLS13\n  curve_preferences: [X25519]\n")
        assert (await s_client(door, "-tls1_2"))[0] == 1
        assert (await s_client(door, "-groups", "P-256"))[0] == 1
        assert (await s_client(door, "-tls1_3"))[0] == 0


@pytest.mark.fault("X09")
async def test_a_scraper_without_tls_and_one_that_says_nothing_are_gone_soon(
    folder: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X09."""
    assert connections.HANDSHAKE <= 10
    monkeypatch.setattr(connections, "HANDSHAKE", 0.3)
    with logging_as() as lines:
        async with guarded(folder, PAIR) as door:
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await asyncio.wait_for(door.get(), 5.0)
            silent = [await asyncio.open_connection("127.0.0.1", door.port) for _ in range(50)]
            assert (await door.get(tls=client(authority))).status == 200
            ends = await asyncio.wait_for(
                asyncio.gather(*(reader.read() for reader, _ in silent), return_exceptions=True), 5.0
            )
            assert {end if isinstance(end, bytes) else type(end) for end in ends} <= {b"", ConnectionResetError}
            for _, writer in silent:
                writer.close()
    assert lines() == []


SANS = "DNS:prometheus.example,IP:::1,email:prometheus@example.org,URI:spiffe://example/prometheus"
ALLOWED = f"{MUTUAL}  client_allowed_sans: [a.example, prometheus.example]\n"


@pytest.mark.fault("X07")
async def test_only_certificates_of_the_authority_are_let_in(
    folder: Path, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """X07."""
    other = Authority(tmp_path_factory.mktemp("other"), "authority")
    good, revoked = authority.issue("good", sans=SANS, usage="clientAuth"), authority.issue("revoked", sans=SANS)
    (folder / "ca.crt").write_text(authority.certificate.read_text() + authority.revoked(revoked))
    refused = {
        "none": None,
        "self-signed": Identity(other.certificate, other.folder / "key"),
        "other authority": other.issue("good", sans=SANS),
        "expired": authority.issue("expired", sans=SANS, until="2021"),
        "not yet": authority.issue("young", sans=SANS, since="2039"),
        "wrong usage": authority.issue("usage", sans=SANS, usage="serverAuth"),
        "revoked": revoked,
    }
    async with guarded(folder, MUTUAL) as door:
        for reason, identity in refused.items():
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                tls = client(authority, identity)
                tls.maximum_version = version
                try:
                    reply = await door.get(tls=tls)
                except (OSError, asyncio.IncompleteReadError):
                    continue
                pytest.fail(f"{reason} got {reply.status}")
        assert (await door.get(tls=client(authority, good))).status == 200


@pytest.mark.parametrize(
    ("sans", "allowed", "status"),
    [
        pytest.param(SANS, "prometheus.example", 200, id="host"),
        pytest.param(SANS, "'0::1'", 200, id="address"),
        pytest.param(SANS, "prometheus@example.org", 200, id="e-mail"),
        pytest.param(SANS, "spiffe://example/prometheus", 200, id="uri"),
        pytest.param(SANS, "a, b, prometheus.example", 200, id="one-of-many"),
        pytest.param(SANS, "example, PROMETHEUS.EXAMPLE, '*.example', good", 403, id="X07-not-listed"),
        pytest.param("", "prometheus.example, good", 403, id="X07-no-names"),
    ],
)
@pytest.mark.fault("X07")
async def test_a_list_of_names_lets_in_who_has_one_of_them(
    folder: Path, authority: Authority, sans: str, allowed: str, status: int
) -> None:
    identity = authority.issue("good", sans=sans)
    async with guarded(folder, f"{MUTUAL}  client_allowed_sans: [{allowed}]\n") as door:
        assert (await door.get(tls=client(authority, identity))).status == status


async def test_a_certificate_may_be_optional_but_not_false(
    folder: Path, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Authority(tmp_path_factory.mktemp("other"), "authority")
    async with guarded(folder, MUTUAL.replace("RequireAndVerifyClientCert", "VerifyClientCertIfGiven")) as door:
        assert (await door.get(tls=client(authority))).status == 200
        assert (await door.get(tls=client(authority, authority.issue("good")))).status == 200
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await door.get(tls=client(authority, other.issue("good")))


async def test_a_certificate_and_a_password_can_both_be_asked_for(folder: Path, authority: Authority) -> None:
    async with guarded(folder, MUTUAL + USERS) as door:
        tls = client(authority, authority.issue("good"))
        assert (await door.get(tls=tls)).status == 401
        assert (await door.get(GOOD, tls=tls)).status == 200


# Changes.


async def presented(door: Door, tls: ssl.SSLContext) -> int:
    """Return the number of the certificate that a new connection is shown."""
    async with door.connection(tls) as (_, writer):
        return int(writer.get_extra_info("peercert")["serialNumber"], 16)


@pytest.mark.fault("X08")
async def test_a_new_certificate_is_shown_without_a_failed_scrape(folder: Path, authority: Authority) -> None:
    """X08."""
    tls = client(authority)
    async with guarded(folder, PAIR) as door:
        scrapes, stop = 0, False

        async def scraper(keep: bool) -> None:
            nonlocal scrapes
            while not stop:
                async with door.connection(tls) as (reader, writer):
                    while not stop and not reader.at_eof():
                        assert (await scrape(reader, writer)).status == 200
                        scrapes += 1
                        await asyncio.sleep(0.005)
                        if not keep:
                            break

        scraping = [asyncio.create_task(scraper(keep)) for keep in (True, False)]
        before = await presented(door, tls)
        for n in range(3):
            door.change(identity=authority.issue(f"server-{n}", sans="DNS:localhost"))
            after = await presented(door, tls)
            assert after != before
            before, seen = after, scrapes
            await until(lambda seen=seen: scrapes > seen + 5)
        stop = True
        await asyncio.gather(*scraping)
        assert door.readings == [True] * 3


async def test_an_old_connection_is_answered_once_more_and_then_closed(folder: Path, authority: Authority) -> None:
    async with guarded(folder, PAIR) as door, door.connection(client(authority)) as (reader, writer):
        for _ in range(2):
            assert (await scrape(reader, writer)).status == 200
        door.change(identity=authority.issue("server-new", sans="DNS:localhost"))
        assert (await scrape(reader, writer)).status == 200
        assert await asyncio.wait_for(reader.read(), 5.0) == b""


async def test_an_authority_that_is_trusted_no_more_lets_nobody_in(
    folder: Path, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Authority(tmp_path_factory.mktemp("other"), "other")
    old, new = client(authority, authority.issue("good")), client(authority, other.issue("good"))
    async with guarded(folder, MUTUAL) as door:
        assert (await door.get(tls=old)).status == 200
        (folder / "ca.crt").write_bytes(other.certificate.read_bytes())
        door.change()
        assert (await door.get(tls=new)).status == 200
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await door.get(tls=old)


async def test_users_come_and_go_with_the_file(tmp_path: Path) -> None:
    async with guarded(tmp_path, USERS + f"  bob: {HASH}\n") as door:
        assert (await door.get(GOOD)).status == 200
        door.change(f"basic_auth_users:\n  bob: {HASH}\n")
        assert (await door.get(GOOD)).status == 401  # although bob has the same hash
        assert (await door.get(basic("bob", PASSWORD))).status == 200
        other = bcrypt.hashpw(b"other", bcrypt.gensalt(10)).decode()
        door.change(f"basic_auth_users:\n  bob: {other}\n")
        assert (await door.get(basic("bob", PASSWORD))).status == 401
        assert (await door.get(basic("bob", "other"))).status == 200
        assert door.readings == [True, True]


@pytest.mark.fault("C10", "C09")
async def test_a_broken_change_keeps_what_was_and_is_told_once(folder: Path, authority: Authority) -> None:
    """C10, and C09 while it runs."""
    tls = client(authority)
    expired = authority.issue("expired", sans="DNS:localhost", until="2021")
    with logging_as() as said:
        async with guarded(folder, PAIR + USERS) as door:
            assert (await door.get(GOOD, tls=tls)).status == 200
            door.change(PAIR + USERS.replace("$10", "$04"))
            for _ in range(3):
                assert (await door.get(GOOD, tls=tls)).status == 200
                door.change()
            assert set(door.readings) == {False}
            door.change(PAIR + USERS, expired)
            assert (await door.get(GOOD, tls=tls)).status == 200
            (folder / "server.key").unlink()
            door.change()
            assert (await door.get(GOOD, tls=tls)).status == 200
            assert door.readings[-1] is False
            door.change(identity=authority.issue("server-new", sans="DNS:localhost"))
            assert (await door.get(GOOD, tls=tls)).status == 200
            assert door.readings[-1] is True
    lines = said()
    assert [line.split()[2] for line in lines] == ["event=web_config_not_reloaded"] * 3 + ["event=web_config_reloaded"]
    for line, words in zip(lines, ("web.yml:5:3: basic_auth_users", "has expired", "can not be read"), strict=False):
        assert words in line
        assert HASH[7:] not in line


async def test_files_are_read_once_they_are_left_alone(tmp_path: Path) -> None:
    """A half-written file is not taken for a whole one."""
    async with guarded(tmp_path, USERS) as door:
        door.age = 0.0
        door.change(f"basic_auth_users:\n  bob: {HASH}\n")
        assert (await door.get(basic("bob", PASSWORD))).status == 401
        assert door.readings == []
        door.age = 2.0
        assert (await door.get(basic("bob", PASSWORD))).status == 401  # not looked at again so soon
        door.now += 1.0
        assert (await door.get(basic("bob", PASSWORD))).status == 200
        assert door.readings == [True]


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        pytest.param(PAIR + USERS, PAIR, "without basic_auth_users only from the next start on", id="users"),
        pytest.param(PAIR + USERS, USERS, "without TLS only from the next start on", id="tls"),
        pytest.param(MUTUAL, PAIR, "without client certificates only from", id="client-certificates"),
        pytest.param(ALLOWED, PAIR, "without client certificates, client_allowed_sans only from", id="names-too"),
        pytest.param(ALLOWED, MUTUAL, "without client_allowed_sans only from", id="names"),
        pytest.param(USERS, PAIR + USERS, "TLS begins with the next start of the program", id="tls-on"),
        pytest.param(USERS, "", "says nothing", id="empty"),
    ],
)
async def test_what_keeps_strangers_out_stays_until_the_next_start(
    folder: Path, before: str, after: str, words: str
) -> None:
    (folder / "web.yml").write_text(before)
    door = Door(folder)
    in_force = door.guard.config()
    with logging_as() as said:
        door.change(after)
        assert door.guard.config() is in_force
        assert door.guard.reload() is False
    assert len(said()) == 1
    assert words in said()[0]
    assert door.readings == [False, False]
    door.guard.close()


async def test_a_broken_file_is_an_error_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "web.yml").write_text("x: y")
    with pytest.raises(SettingsError, match=r"web\.yml:1:1: x: is not known"):
        Guard(tmp_path / "web.yml", Clock())


async def test_a_reading_that_is_asked_for_does_not_wait(tmp_path: Path) -> None:
    (tmp_path / "web.yml").write_text(USERS)
    guard = Guard(tmp_path / "web.yml", Clock())
    (tmp_path / "web.yml").write_text(USERS + f"  bob: {HASH}\n")
    assert guard.reload() is True
    assert list(guard.config().users) == ["alice", "bob"]
    guard.close()
