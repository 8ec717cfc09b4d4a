"""Rows X: who attacks. Passwords and TLS are held by tests/test_guard.py, image, chart and unit by their own tests."""

import ast
import asyncio
import hashlib
import html
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import raw
import yaml
from canary import SEEN, look
from raw import Script
from servers import EXPORTER, ROOT, TOKEN, ask, clean_environment, finished, settings_for, simulated

import exporter
from exporter.page import POLICY
from exporter.settings import load
from faults.conftest import process, row, trial

# The token, and where requests go.

QUOTED = f'{{"title": "{TOKEN}", "detail": "Bearer {TOKEN}", "access_token": "{TOKEN}"}}'


def linked(url: str) -> bytes:
    """A page that says where the next one is."""
    return raw.reply(f'{{"results": [], "_links": {{"next": {{"href": "{url}"}}}}}}')


@row(
    "X11",
    error=raw.reply(QUOTED, 400, "application/problem+json"),
    refused=raw.reply(QUOTED, 401),
    broken=raw.reply(QUOTED, 500),
    text=raw.reply(f"no access for {TOKEN}", 403, "text/plain"),
    type=raw.reply("{}", 200, f"text/{TOKEN}"),
    location=raw.reply("", 302, Location=f"https://{TOKEN}.example/?token={TOKEN}"),
    next=linked(f"https://user:{TOKEN}@{TOKEN}.example/v7/{TOKEN}?cursor={TOKEN}"),
    no_json=raw.reply(f"{{{TOKEN}"),
    schema=raw.reply(f'{{"results": "{TOKEN}"}}'),
    status=f"HTTP/1.1 599 {TOKEN}\r\nContent-Length: 0\r\n\r\n".encode(),
    header=f"HTTP/1.1 200 OK\r\n{TOKEN}: {TOKEN}\r\nContent-Length: {TOKEN}\r\n\r\n".encode(),
)
async def test_an_api_that_says_the_token_back(case: Script) -> None:
    async with trial() as t, t.fault():
        t.api.says(case)
        await t.polls(2)
        assert sum(t.failed.values()) == 2
        assert TOKEN.lower() not in "\n".join(t.lines()).lower()


@row("X12", redirect=302, next=200, permanent=308)
async def test_an_api_that_leads_elsewhere(case: int) -> None:
    heard: list[bytes] = []

    async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del writer
        heard.append(b"connected")
        heard.append(await reader.read(1000))

    async with raw.listening(elsewhere) as port, trial() as t:
        for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"user:password@127.0.0.1:{port}"):
            url = f"http://{host}/v7/endpoint/test-results/real-user-tests/filter?cursor=x"
            async with t.fault():
                t.api.says(linked(url) if case == 200 else raw.reply("{}", case, Location=url))
                await t.polls(1)
                assert t.failed == {"pagination_origin" if case == 200 else "redirect": 1}
        assert heard == []


@row("X10", real=True)
async def test_the_token_is_seen_nowhere_and_no_other_host_is_asked(tmp_path: Path) -> None:
    """What every other test looks for too (tests/canary.py), where nothing is wrong and most is said."""
    heard: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1000))

    (tmp_path / ".netrc").write_text("default login somebody password else\n")
    settings = settings_for("http://127.0.0.1:1")
    look("representation", f"{settings!r} {settings} {vars(settings)!r} {settings.api} {settings.api.token!r}")
    look("representation", f"{load([f'--api.token={TOKEN}'], {})!r}")
    async with raw.listening(proxy) as port:
        proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy"), f"http://127.0.0.1:{port}")
        environment = {**clean_environment(HOME=str(tmp_path), THOUSANDEYES_TOKEN=TOKEN, **proxies), "NO_PROXY": ""}
        async with process("--log.level=debug", env=environment) as p:
            for path in ("/metrics", "/", "/-/ready", f"/{TOKEN}", f"/?{TOKEN}"):
                reply = await ask(p.address, path, Authorization=f"Bearer {TOKEN}")
                assert TOKEN not in reply.text
        async with simulated() as (_, api):
            checking = [*EXPORTER, "--log.level=debug", f"--api.url={api}", "check"]
            code, output, errors = await finished(*checking, env=environment)
            assert code == 0, output + errors
    assert heard == []
    assert SEEN == []


@row("X10")
def test_who_looks_for_the_token_finds_it() -> None:
    known = len(SEEN)
    try:
        look("output", f"Authorization: Bearer {TOKEN}".encode())
        assert len(SEEN) == known + 1
    finally:
        del SEEN[known:]


# The page, and the log.

EVIL = "<script>alert(1)</script>"


@row("X13")
async def test_nothing_that_is_asked_for_is_said_back() -> None:
    async with trial() as t, t.fault():
        for path in (f"/{EVIL}", f"/?{EVIL}", f"/metrics?x={EVIL}", f"/-/healthy?{EVIL}", "/-/ready", "/", "/nothing"):
            for method in ("GET", "POST"):
                reply = await ask(t.address, path.replace(" ", ""), method, Referer=EVIL, User_Agent=EVIL, Cookie=EVIL)
                assert EVIL not in reply.text
                assert html.escape(EVIL) not in reply.text
                assert reply.headers["x-content-type-options"] == "nosniff"
                page = method == "GET" and path.partition("?")[0] == "/"
                assert reply.headers["content-type"].startswith("text/html" if page else ("text/plain", "application/"))
                assert reply.headers.get("content-security-policy") == (POLICY if page else None)
        for directive in ("default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"):
            assert directive in POLICY
        assert "unsafe" not in POLICY


@row("X14")
async def test_line_ends_and_escapes_from_everywhere() -> None:
    odd = "\x1b[31m\r\nlevel=error event=forged\x00\x85\u2028"
    async with trial() as t:
        before = len(t.lines())
        async with t.fault():
            for data in (
                f"GET /{odd} HTTP/1.1\r\nHost: x\r\n\r\n",
                f"GET /metrics HTTP/1.1\r\nHost: x\r\nUser-Agent: {odd}\r\n\r\n",
                "GET /%0d%0alevel=error%20event=forged%1b HTTP/1.1\r\nHost: x\r\n\r\n",
            ):
                _, writer = await asyncio.open_connection(*_where(t.address))
                writer.write(data.encode())
                await asyncio.sleep(0.2)
                writer.transport.abort()
            t.api.says(raw.reply("{}", 200, f"text/{odd[:5]}x"))
            await t.polls(1)
        t.api.fails("odd_labels")
        await t.polls(2)
        assert "\\n" in await t.text(), "there are line ends in what the API sends"
        for line in t.lines()[before:]:
            assert line.isprintable(), line
            assert line.startswith("time=20"), line
            assert "forged" not in line


def _where(address: str) -> tuple[str, int]:
    host, _, port = address.removeprefix("http://").partition(":")
    return host, int(port)


PATHS = (
    *("/debug/pprof/", "/debug/vars", "/debug", "/-/reload", "/-/quit", "/-/config", "/config", "/env", "/status"),
    *("/admin", "/metrics/reload", "/api/v1/admin/tsdb/snapshot", "/console", "/favicon.ico", "/.env", "/static/"),
)


@row("X15")
async def test_there_is_nothing_to_debug_profile_or_reload() -> None:
    async with trial() as t, t.fault():
        before = t.exporter.settings
        for path in PATHS:
            for method in ("GET", "POST", "PUT"):
                assert (await ask(t.address, path, method)).status in (404, 405)
        assert t.exporter.settings is before


@row("X17")
async def test_no_request_makes_a_series() -> None:
    async with trial() as t, t.fault():
        own = _own(await t.text())
        for n in range(20):
            await ask(t.address, f"/some-path-{n}", f"SOME{n}", User_Agent=f"agent-{n}")
            await ask(t.address, f"/metrics?path-{n}={n}", "POST" if n % 2 else "GET")
        assert _own(await t.text()) == own
        assert "some-path" not in await t.text()


def _own(text: str) -> set[str]:
    """Names and labels of the exporter's own series."""
    return {line.rpartition(" ")[0] for line in text.splitlines() if line.startswith("thousandeyes_exporter_")}


# The code, and what it is made of.

CODE = sorted(Path(exporter.__file__).parent.rglob("*.py"))
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "marshal.loads", "input"}
UNSAFE_MODULES = {"pickle", "shelve", "marshal", "subprocess", "dill", "telnetlib", "ctypes", "code", "pty"}


def unsafe(source: str) -> Iterator[str]:
    """Yield what in a program takes data for code, or looks away."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names) if found := {each.name for each in names} & UNSAFE_MODULES:
                yield f"import {found}"
            case ast.ImportFrom(module=module) if module in UNSAFE_MODULES:
                yield f"import {module}"
            case ast.Assert():
                yield "assert"
            case ast.Call(func=func, keywords=keywords):
                name = ast.unparse(func)
                if name in UNSAFE_CALLS or name in ("yaml.load", "yaml.unsafe_load", "yaml.full_load"):
                    yield name
                for keyword in keywords:
                    if f"{keyword.arg}={ast.unparse(keyword.value)}" in ("shell=True", "verify=False", "ssl=False"):
                        yield f"{name}({keyword.arg})"
            case ast.Attribute(attr="CERT_NONE" | "_create_unverified_context" as attr):
                yield attr
            case ast.Assign(targets=[ast.Attribute(attr="check_hostname")], value=ast.Constant(value=False)):
                yield "check_hostname"


LOOKS_AWAY = {
    "publisher.py": {"import {'ctypes'}"},
    "web_config.py": {"CERT_NONE", "check_hostname"},
}
"""Memory is given back by a call of the C library that takes a zero; where a server asks no client for a certificate,
and where its own is tried under no name."""


@row("X19")
def test_nothing_takes_data_for_code_or_looks_away() -> None:
    bad = "import pickle\nyaml.load(x)\nassert x\nrun(x, shell=True)\neval(x)\nget(x, ssl=False)\nssl.CERT_NONE\n"
    assert len(list(unsafe(bad))) == 7
    found = {path.name: set(unsafe(path.read_text())) for path in CODE}
    assert {name: each for name, each in found.items() if each} == LOOKS_AWAY


LOCKS = ("requirements.txt", "requirements-build.txt", "requirements-dev.txt")


@row("X20")
def test_a_package_of_other_bytes_is_not_installed(tmp_path: Path) -> None:
    for name in LOCKS:
        lock = re.sub(r"\\\n", "", (ROOT / name).read_text())
        pinned = [line for line in lock.splitlines() if line.strip() and not line.lstrip().startswith(("#", "-"))]
        assert pinned
        assert [line for line in pinned if "==" not in line or "--hash=sha256:" not in line] == []
        assert "index-url" not in lock
    wheel = tmp_path / "tampered-1.0-py3-none-any.whl"
    for content in ("as it was pinned", "as somebody made it"):
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("tampered.py", f"'{content}'\n")
            archive.writestr("tampered-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tampered\nVersion: 1.0\n")
            archive.writestr(
                "tampered-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            archive.writestr("tampered-1.0.dist-info/RECORD", "")
        if content == "as it was pinned":
            hash_ = hashlib.sha256(wheel.read_bytes()).hexdigest()
            (tmp_path / "lock").write_text(f"tampered==1.0 --hash=sha256:{hash_}\n")
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
        install = [*pip, "install", "--dry-run", "--no-index", "--find-links", tmp_path, "--require-hashes", "-r"]
        done = subprocess.run([*install, tmp_path / "lock"], capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == (content == "as it was pinned"), done.stderr
    assert "DO NOT MATCH" in done.stderr


WORKFLOW = "permissions: {}\njobs: {a: {runs-on: x, steps: [{uses: 'a/b@0123456789012345678901234567890123456789'}]}}"


def weaknesses(text: str) -> Iterator[str]:
    """Yield what is weak in a workflow of GitHub."""
    workflow = yaml.safe_load(text)
    if workflow.get("permissions") != {}:
        yield "rights that no job has asked for"
    for name, job in workflow["jobs"].items():
        for step in [job, *job.get("steps", [])]:
            if "uses" in step and not re.fullmatch(r"(\./.*|[\w./-]+@[0-9a-f]{40})", step["uses"]):
                yield f"{name}: {step['uses']} can change"
            if re.search(r"\$\{\{[^}]*github\.(event|head_ref)", str(step.get("run", ""))):
                yield f"{name}: a script made of what a stranger wrote"


@row("X22")
def test_no_workflow_is_open_to_others() -> None:
    assert list(weaknesses(WORKFLOW)) == []
    weak = WORKFLOW.replace("{}\n", "write-all\n").replace("@0123456789", "@v4 #")
    assert len(list(weaknesses(weak.replace("}]}}", ", run: '${{ github.event.issue.title }}'}]}}")))) == 3
    found = {path.name: list(weaknesses(path.read_text())) for path in (ROOT / ".github/workflows").glob("*.y*ml")}
    assert {name: each for name, each in found.items() if each} == {}


SECRETS = (
    r"-----BEGIN (?:RSA |EC |ENCRYPTED |OPENSSH )?PRIVATE KEY-----\s+[A-Za-z0-9+/]{40}",
    r"\bgh[pousr]_[A-Za-z0-9]{36}\b",
    r"\bAKIA[0-9A-Z]{16}\b",
    r"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    r"\bpypi-[A-Za-z0-9_-]{50,}",
    r"(?i)(?:bearer|token[\"']?\s*[:=])\s*[\"']?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
)


def secrets(text: str) -> list[str]:
    """Return what looks like a real secret."""
    return [found[0][:30] for pattern in SECRETS for found in re.finditer(pattern, text)]


@row("X24")
def test_the_project_holds_no_secret() -> None:
    assert secrets("authorization: Bearer 01234567-89ab-cdef-0123-456789abcdef") != []
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    assert len(files) > 100
    texts = {
        path: path.read_text(errors="replace") for path in files if path.is_file() and path.stat().st_size < 5_000_000
    }
    own = Path(__file__)
    assert {str(path): each for path, text in texts.items() if path != own and (each := secrets(text))} == {}


@row("X32")
def test_who_finds_a_weakness_knows_what_to_do() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    assert "Report a vulnerability" in text
    assert "within 90 days" in " ".join(text.split())
    assert f"| {'.'.join(exporter.__version__.split('.')[:2])} | yes |" in text
    assert "advisory" in text
