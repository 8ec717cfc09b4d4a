"""Settings files and web configuration files that nobody would write, and what has to hold when they are read."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

from exporter import settings, settings_file, web_config
from exporter.errors import SettingsError

SECRET = "canary9hT2xVq"
HASH = "$2y$10$" + "a" * 21 + "O" + "b" * 30 + "C"
EXAMPLES = (
    f"api:\n  token: {SECRET}\n  version: v6\n  email: a@example.com\n  account_groups: [1001]\n  timeout: 30s\n",
    f"api: {{token: '{SECRET}', url: https://api.example.com, requests_per_minute: 100}}\npoll: {{interval: 1m}}\n",
    "filter:\n  include_sites: ['.*\\.example\\.com']\n  exclude_agents: [a, b]\n  search: {agentId: [x]}\n",
    "metrics:\n  families: [latency_seconds, sessions]\n  max_series: 1000\n  site_groups:\n"
    "    - pattern: '.*'\n      name: all\n  agent_names: off\n",
    "web:\n  listen_address: '[::1]:9350'\n  telemetry_path: /metrics\n  max_requests: 40\nlog: {level: debug}\n",
    "simulator: {agents: 5, sites: 3, seed: 1, faults: [server_error=0.2, 'rate_limited@10m+5m']}\n",
)  # fmt: skip
WEB_EXAMPLES = (
    f"basic_auth_users:\n  alice: {HASH}\n  bob: '{HASH}'\n",
    "tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n  client_ca_file: ca.pem\n"
    "  client_auth_type: RequireAndVerifyClientCert\n  client_allowed_sans: [a.example, '::1']\n  min_version: TLS12\n"
    "  max_version: TLS13\n  cipher_suites: [TLS_AES_128_GCM_SHA256]\n  curve_preferences: [X25519]\n",
    "http_server_config:\n  http2: true\n  headers:\n    X-Frame-Options: deny\n",
    "rate_limit:\n  interval: 1s\n  burst: 20\n",
)  # fmt: skip
PIECES = (
    "&a", "*a", "!!python/object:os.system ls", "!x", "<<: *a", "%YAML 1.1\n---\n", "---\n", "...\n", "\t", "\0",
    "\ufeff", "? [a]\n: b\n", "- ", "[" * 50, "{" * 50, "[" * 3000, "a: " * 40, "|\n", ">-\n", "'", '"', "#", ": ",
    ":\n", "~", "null", "\x85", "\u2028", "yes", "0x1F", "1_000", "1e400", ".nan", ".inf", "9" * 5000, "-1",
    "2001-01-01", "1m", "10y", "0s", "1h1h", "((a+)+)+$", "(", "[a-", "(?P<x>", "\\", "*", "http://",
    "https://user:password@x", "https://[::1", "http://127.0.0.1:99999", "/", "/dev/null", "/proc/self/mem",
    "/nowhere", ".", "\ud7ff", "é", "\U0001f994", "a" * 5000, "__proto__", "api:\n", "  token: x\n", "=", "0", "true",
)  # fmt: skip


def written(rng: Random, examples: tuple[str, ...]) -> bytes:
    """Write a file: examples, put together and damaged."""
    lines = "".join(rng.choice(examples) for _ in range(rng.choice((1, 1, 2)))).split("\n")
    for _ in range(rng.choice((0, 1, 2, 4))):
        place = rng.randrange(len(lines))
        match rng.randrange(7):
            case 0:
                del lines[place : place + 1]
            case 1:
                lines.insert(place, rng.choice(lines or [""]))
            case 2:
                name, colon, _ = lines[place].partition(": ")
                lines[place] = name + colon + rng.choice(PIECES)
            case 3:
                lines.insert(place, " " * rng.randrange(5) + rng.choice(PIECES))
            case 4:
                cut = rng.randrange(len(lines[place]) + 1)
                lines[place] = lines[place][:cut] + rng.choice(PIECES) + lines[place][cut:]
            case 5:
                lines[place] = " " * rng.randrange(4) + lines[place].lstrip()
            case _:
                lines[place] = lines[place].swapcase()
        lines = lines or [""]
    data = "\n".join(lines).encode("utf-8", "surrogatepass")
    if rng.random() < 0.15:
        place = rng.randrange(len(data) + 1)
        data = data[:place] + rng.randbytes(rng.choice((1, 2, 8))) + data[place + rng.randrange(3) :]
    return data.decode("utf-8", "replace").encode("utf-16") if rng.random() < 0.01 else data


class Files:
    """A file that is written and read again and again."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)  # noqa: S108
        self._path = Path(self._folder.name) / "file.yml"

    def close(self) -> None:
        """Leave nothing behind."""
        self._folder.cleanup()

    def settings(self, data: bytes) -> bool:
        """Load settings; return whether they are good."""
        return self._read(data, lambda: settings.load([f"--config.file={self._path}"], {}, ["latency_seconds"]))

    def web_config(self, data: bytes) -> bool:
        """Read a web configuration; return whether it is good."""
        return self._read(data, lambda: web_config.read(self._path))

    def _read(self, data: bytes, read: Callable[[], object]) -> bool:
        """Read a file: it is good, or there are problems, one a line, and none of them tells a secret."""
        self._path.write_bytes(data)
        problems: tuple[str, ...] = ()
        try:
            read()
        except SettingsError as error:
            problems = error.problems
            assert problems
        if problems:
            entries, _ = settings_file.read(data)
            named = "".join(entry.name for entry in entries)  # what stands where a name belongs is told
            for problem in problems:
                assert SECRET not in problem or SECRET in named, problem
                assert HASH[7:] not in problem or HASH[7:] in named, problem
                assert problem.isprintable(), repr(problem)
                assert len(problem) < 1000, problem
            return False
        return True
