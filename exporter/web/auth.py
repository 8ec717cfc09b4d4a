"""Authentication and TLS for incoming requests, as defined by the web configuration file."""

import asyncio
import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bcrypt
import structlog
from aiohttp import web

from exporter import NAME
from exporter.clock import Clock
from exporter.errors import SettingsError
from exporter.web.config import WebConfig, load, stamp

CHECK_INTERVAL = 1.0
"""Seconds between two checks of the files; a file is read once it is unchanged for as long."""
MAX_VERIFICATIONS = 5
"""Maximum number of passwords verified in one second, and waiting for verification."""
log = structlog.get_logger()


class Authenticator:
    """Applies the newest valid web configuration to connections and requests."""

    def __init__(self, path: Path, clock: Clock) -> None:
        """Read the file; raises SettingsError if it is not valid."""
        self._path, self._clock = path, clock
        self._config = load(path)
        self._problem = ""
        self._checked = clock.monotonic()
        self._passwords = _Passwords()
        if self._config.users and not self._config.tls:
            log.warning("basic_auth_without_tls", file=str(path), hint="set tls_server_config")

    def config(self) -> WebConfig:
        """Return the newest valid configuration; reads the files again if they have changed."""
        now = self._clock.monotonic()
        if now - self._checked >= CHECK_INTERVAL:
            self._checked = now
            stamps = {path: stamp(path) for path in self._config.stamps}
            ages = [self._clock.wall() - found[0] / 1e9 for found in stamps.values() if found]
            is_being_written = any(0 <= age < CHECK_INTERVAL for age in ages)
            if not is_being_written and (self._problem or stamps != self._config.stamps):
                self._reload()
        return self._config

    def _reload(self) -> None:
        """Read the files; a configuration that is not valid is logged once and not applied."""
        try:
            config, problem = load(self._path), ""
        except SettingsError as error:
            problem = str(error)
        else:
            if (config.tls is None) != (self._config.tls is None):
                problem = f"{self._path}: turning TLS on or off requires a restart"
        if not problem:
            self._config = config
            log.info("web_config_reloaded", file=str(self._path))
        elif problem != self._problem:
            hint = "the previous configuration stays in effect"
            log.error("web_config_not_reloaded", error=problem, hint=hint)
        self._problem = problem

    async def authorize(self, request: web.Request) -> None:
        """Raise HTTPException, the response, for a request that is not allowed."""
        config = self.config()
        certificate: Mapping[str, Any] = request.get_extra_info("peercert") or {}
        names = {name for _, name in certificate.get("subjectAltName", ())}
        if config.allowed_sans and config.allowed_sans.isdisjoint(names):
            raise web.HTTPForbidden(text="client certificate not allowed\n")
        header = request.headers.get("Authorization", "")
        if config.users and not await self._passwords.verify(config.users, header):
            challenge = f'Basic realm="{NAME}", charset="UTF-8"'
            headers = {"WWW-Authenticate": challenge}
            raise web.HTTPUnauthorized(text="authentication required\n", headers=headers)


class _Passwords:
    """Verifies passwords, one at a time; unknown users take as long as known ones."""

    def __init__(self) -> None:
        self._accepted: set[bytes] = set()  # digests of user name, password and hash
        self._slots = asyncio.Semaphore(MAX_VERIFICATIONS)
        self._running = asyncio.Lock()

    async def verify(self, users: Mapping[str, str], header: str) -> bool:
        """Whether an `Authorization` header has the name and the password of a user.

        Raises HTTPTooManyRequests if too many passwords would have to be verified.
        """
        credentials = _credentials(header)
        if not credentials:
            return False
        user, password = credentials
        hash_ = users.get(user)
        digest = hashlib.sha256(f"{hash_}:{user}:".encode() + password).digest()
        if digest in self._accepted:
            return True
        if self._slots.locked():
            raise web.HTTPTooManyRequests(text="too many logins\n", headers={"Retry-After": "1"})
        await self._slots.acquire()
        try:
            async with self._running:
                any_hash = hash_ or next(iter(users.values()))
                match = await asyncio.to_thread(bcrypt.checkpw, password, any_hash.encode())
        finally:
            asyncio.get_running_loop().call_later(1.0, self._slots.release)
        if match and hash_:
            self._accepted.add(digest)
        return match and hash_ is not None


def _credentials(header: str) -> tuple[str, bytes] | None:
    """Return the user name and the password of a valid basic `Authorization` header."""
    scheme, _, encoded = header.partition(" ")
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        valid = scheme.lower() == "basic" and colon and len(password) <= 72  # bcrypt's limit
        return (user.decode(), password) if valid else None
    except ValueError:
        return None
