"""Lets in who may ask: keeps the newest good web configuration, and holds every connection and request to it.

What the file may say is left to `exporter.web_config`, what is answered to those who may ask to `exporter.web`.
"""

import asyncio
import base64
import hmac
import math
import re
import secrets
import ssl
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, cast

import bcrypt

from exporter import NAME, log
from exporter.clock import Clock
from exporter.errors import SettingsError
from exporter.server import Answer, Request, said
from exporter.web_config import WebConfig, names, read, stamp

K = TypeVar("K")
V = TypeVar("V")

CHECK_EVERY = 1.0
"""Seconds between two looks at the files, and for which they must have been left alone: half a file is not read."""
FAILURES_A_SECOND = 5.0
"""Wrong passwords that are hashed; who comes with one more has to wait."""
FAILURES_EACH = 1.0
"""Those of one address, so that one that only guesses leaves some for others."""
AT_ONCE = 5
"""Passwords that may come together, or wait for their turn."""
REMEMBERED = 1000
"""Good credentials, and addresses, that are remembered."""
MAX_AUTHORIZATION = 1024
MAX_PASSWORD = 72
"""Bytes that bcrypt looks at: a longer password is nobody's."""


class Guard:
    """One web configuration file, as it is now."""

    def __init__(self, path: Path, clock: Clock, reloaded: Callable[[bool], None] = lambda successful: None) -> None:
        """Read the file; `reloaded` is told of every later reading whether it was good.

        Raises:
            SettingsError: where it is not.
        """
        self._path = path
        self._clock = clock
        self._reloaded = reloaded
        self._config = read(path)
        self._problems: tuple[str, ...] = ()
        self._checked = clock.monotonic()
        self._limit = _Bucket(clock, *self._config.rate_limit) if self._config.rate_limit else None
        self._logins = _Logins(clock)
        self.tls = _Newest(self) if self._config.tls else None
        """To listen with; None is plain HTTP. A new connection takes what is in force then."""
        if self._config.users and not self.tls:
            log.warn("passwords_in_the_clear", file=path, hint="basic_auth_users without tls_server_config")

    def close(self) -> None:
        """Hash no more."""
        self._logins.close()

    @property
    def headers(self) -> Mapping[str, str]:
        """What every answer has to carry."""
        return self._config.headers

    def config(self) -> WebConfig:
        """Return the newest good configuration; files that have changed are read again."""
        now = self._clock.monotonic()
        if now - self._checked >= CHECK_EVERY:
            self._checked = now
            stamps = {path: stamp(path) for path in self._config.files}
            ages = [self._clock.wall() - found[0] / 1e9 for found in stamps.values() if found]
            settled = not any(0 <= age < CHECK_EVERY for age in ages)
            if settled and (self._problems or stamps != self._config.files):
                self.reload()
        return self._config

    def reload(self) -> bool:
        """Read the file again; where it is not good, what was in force stays so, and the log says why, once."""
        try:
            self._adopt(read(self._path))
            problems: tuple[str, ...] = ()
            log.info("web_config_reloaded", file=self._path)
        except SettingsError as error:
            problems = error.problems
            if problems != self._problems:
                log.error("web_config_not_reloaded", problem=error, hint="what was in force before stays so")
        self._problems = problems
        self._reloaded(not problems)
        return not problems

    def _adopt(self, config: WebConfig) -> None:
        old = self._config
        if config.tls and not old.tls:
            raise SettingsError([f"{self._path}: TLS begins with the next start of the program"])
        if lost := old.protection - config.protection:
            raise SettingsError([f"{self._path}: without {', '.join(sorted(lost))} only from the next start on"])
        if config.rate_limit != old.rate_limit:
            self._limit = _Bucket(self._clock, *config.rate_limit) if config.rate_limit else None
        self._config = config

    async def authorize(self, request: Request) -> Answer | None:
        """Return the answer to who may not ask, None for all others."""
        config = self.config()
        tls = request.transport.get_extra_info("ssl_object")
        if tls and tls.context is not config.tls:
            request.keep_alive = False  # the next one is under the new configuration
        if self._limit and (wait := self._limit.take()):
            return _later(wait)
        if config.sans and config.sans.isdisjoint(names(request.transport.get_extra_info("peercert"))):
            return said(403, "this certificate has no name that is allowed here\n")
        if not config.users:
            return None
        credentials = _credentials(request.all("authorization"))
        try:
            if credentials and await self._logins.good(config.users, *credentials, request.remote):
                return None
        except _Busy as busy:
            return _later(busy.seconds)
        return said(401, "name and password, please\n", WWW_Authenticate=f'Basic realm="{NAME}", charset="UTF-8"')


class _Newest(ssl.SSLContext):
    """Has each new connection wrapped by the context of the configuration that is in force."""

    _guard: Guard

    def __new__(cls, guard: Guard) -> "_Newest":
        self = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        self._guard = guard
        return self

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        return cast("ssl.SSLContext", self._guard.config().tls).wrap_bio(*arguments, **named)


class _Busy(Exception):
    """Nobody has time to look at one more password; in so many `seconds` somebody may."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__()


class _Logins:
    """Who knows a password: remembered where it was right, and hashed on at most one processor where it is new.

    A name that is not known costs what one that is known costs, and tells nothing.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._good: OrderedDict[bytes, None] = OrderedDict()
        self._everyone = _Bucket(clock, 1 / FAILURES_A_SECOND, AT_ONCE)
        self._each: OrderedDict[str, _Bucket] = OrderedDict()
        self._waiting = 0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="bcrypt")

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def good(self, users: Mapping[str, str], user: str, password: str, address: str) -> bool:
        """Tell whether the password is the user's.

        Raises:
            _Busy: where it would have to be hashed, and too much is already.
        """
        stand_in = sorted(users.values())[int.from_bytes(self._digest(user)) % len(users)]
        hash_ = users.get(user, stand_in)
        login = self._digest(user, password, hash_)
        if login in self._good:
            self._good.move_to_end(login)
            return user in users
        mine = self._each.pop(address, None) or _Bucket(self._clock, 1 / FAILURES_EACH, AT_ONCE)
        _put(self._each, address, mine)
        if wait := float(self._waiting >= AT_ONCE) or mine.take() or self._everyone.take():
            raise _Busy(wait)
        bare = password.encode()
        self._waiting += 1
        try:
            run = asyncio.get_running_loop().run_in_executor
            equal = await run(self._pool, bcrypt.checkpw, bare[:MAX_PASSWORD], hash_.encode())
        finally:
            self._waiting -= 1
        if not equal or user not in users or len(bare) > MAX_PASSWORD:
            return False
        mine.give()
        self._everyone.give()
        _put(self._good, login, None)
        return True

    def _digest(self, *texts: str) -> bytes:
        return hmac.digest(self._key, "\0".join(texts).encode(), "sha256")


def _put(kept: OrderedDict[K, V], key: K, value: V) -> None:
    """Keep what was used last."""
    kept[key] = value
    if len(kept) > REMEMBERED:
        kept.popitem(last=False)


class _Bucket:
    """Something of which there is one more `every` so many seconds, and never more than `size`."""

    def __init__(self, clock: Clock, every: float, size: int) -> None:
        self._clock = clock
        self._every = every
        self._size = self._level = float(size)
        self._at = clock.monotonic()

    def take(self) -> float:
        """Take one; return the seconds to wait where there is none, else 0."""
        now = self._clock.monotonic()
        self._level = min(self._size, self._level + (now - self._at) / self._every)
        self._at = now
        if self._level < 1.0:
            return (1.0 - self._level) * self._every
        self._level -= 1.0
        return 0.0

    def give(self) -> None:
        """Put one back."""
        self._level = min(self._size, self._level + 1.0)


def _later(seconds: float) -> Answer:
    return said(429, "too many at once\n", Retry_After=str(math.ceil(seconds)))


def _credentials(headers: list[str]) -> tuple[str, str] | None:
    """Return name and password of the one `Authorization` header there may be; None where anything is odd about it."""
    header = headers[0] if len(headers) == 1 else ""
    match = re.fullmatch("basic +([a-z0-9+/]+={0,2})", header[: MAX_AUTHORIZATION + 1], re.IGNORECASE | re.ASCII)
    if not match or len(header) > MAX_AUTHORIZATION:
        return None
    try:
        text = base64.b64decode(match[1], validate=True).decode()
    except ValueError:
        return None
    user, colon, password = text.partition(":")
    return (user, password) if colon and not re.search(r"[\0-\x1f\x7f]", text) else None
