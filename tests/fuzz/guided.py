"""`python -m fuzz.guided [TARGET ...] [--seconds N]` from `tests`: fuzzing that is guided by coverage, with atheris.

Targets are run one after another, each for so long. What is found interesting is kept in `.fuzz/TARGET` and begun with
the next time; an input that breaks an invariant is left in `.fuzz/TARGET-crash-…`, and run again by `--input FILE`.
"""

# ruff: noqa: S311, T201 - what goes wrong is not a secret; it is a command

import argparse
import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random

try:
    import atheris
except ImportError:
    sys.exit("atheris has wheels for x86-64 alone: elsewhere there is `python -m fuzz`, which has no guide")

with atheris.instrument_imports(include=["exporter"]):
    from fuzz import files, polls, replies, scrapers

FOLDER = Path(__file__).parent.parent.parent / ".fuzz"
LARGEST = 20_000
"""Bytes of an input."""

Target = Callable[[bytes], None]
PATHS = [(version, path) for version in ("v6", "v7") for path in replies.seeds(version)]


def _body(_: ExitStack) -> Target:
    def target(data: bytes) -> None:
        version, path = PATHS[data[0] % len(PATHS)] if data else PATHS[0]
        asyncio.run(polls.one(version, path, replies.Reply(data[1:], headers={"Content-Type": "application/json"})))

    return target


def _header(_: ExitStack) -> Target:
    def target(data: bytes) -> None:
        given = atheris.FuzzedDataProvider(data)
        status = given.PickValueInList([200, *replies.STATUSES])
        names = [given.PickValueInList([*replies.HEADERS]) for _ in range(given.ConsumeIntInRange(0, 4))]
        headers = {name: given.ConsumeUnicode(40) for name in names}
        reply = replies.Reply(given.ConsumeBytes(LARGEST), status, {"Content-Type": "application/json", **headers})
        version, path = PATHS[given.ConsumeIntInRange(0, len(PATHS) - 1)]
        asyncio.run(polls.one(version, path, reply))

    return target


def _link(_: ExitStack) -> Target:
    def target(data: bytes) -> None:
        version, path = PATHS[data[0] % len(PATHS)] if data else PATHS[0]
        asyncio.run(
            polls.one(version, path, replies.leading_to(version, path, data[1:].decode("utf-8", "surrogateescape")))
        )

    return target


def _request(stack: ExitStack) -> Target:
    server = stack.enter_context(scrapers.serving())

    def target(data: bytes) -> None:
        server.hold(data)

    return target


def _file(name: str) -> Callable[[ExitStack], Target]:
    def make(stack: ExitStack) -> Target:
        read = files.Files()
        stack.callback(read.close)
        return lambda data: getattr(read, name)(data) and None

    return make


TARGETS: dict[str, Callable[[ExitStack], Target]] = {
    "body": _body,
    "header": _header,
    "link": _link,
    "request": _request,
    "settings": _file("settings"),
    "web_config": _file("web_config"),
}


def seeds(name: str) -> Iterator[bytes]:
    """Yield what a target begins with."""
    rng = Random(name)
    match name:
        case "body" | "link":
            for number, (version, path) in enumerate(PATHS):
                pages = [text for its, text in replies.bodies(version) if its == path]
                links = [
                    link.encode("utf-8", "surrogatepass") for link in replies.addresses("https://api.example.com", path)
                ]
                yield from (bytes([number]) + each for each in (pages if name == "body" else links))
        case "request":
            yield from (scrapers.sent(rng) for _ in range(300))
        case "settings" | "web_config":
            examples = files.EXAMPLES if name == "settings" else files.WEB_EXAMPLES
            yield from map(str.encode, examples)
            yield from (files.written(rng, examples) for _ in range(100))
        case _:
            yield b""


def fuzz(name: str, arguments: list[str]) -> None:
    """Fuzz one target until it is time, or an invariant breaks; does not return."""
    logging.getLogger("exporter").addHandler(logging.NullHandler())
    logging.getLogger("exporter").propagate = False
    corpus = FOLDER / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(name)):
        (corpus / f"seed-{number:03}").write_bytes(seed[:LARGEST])
    with ExitStack() as stack:
        target = TARGETS[name](stack)
        atheris.Setup([sys.argv[0], *arguments], target)
        atheris.Fuzz()


def main(argv: Sequence[str] | None = None) -> int:
    """Fuzz; return 1 where an invariant broke."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.guided", description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--input", type=Path)
    options = parser.parse_args(argv)
    if "FUZZ_TARGET" in os.environ:
        name = os.environ["FUZZ_TARGET"]
        common = [f"-artifact_prefix={FOLDER / name}-", f"-max_len={LARGEST}", "-timeout=20", "-print_final_stats=1"]
        fuzz(
            name,
            [
                *common,
                *(
                    [str(options.input)]
                    if options.input
                    else [f"-max_total_time={options.seconds}", str(FOLDER / name)]
                ),
            ],
        )
    broken = []
    for name in options.targets or TARGETS:
        print(f"== {name}", flush=True)
        command = [sys.executable, "-m", "fuzz.guided", *sys.argv[1:]]
        if subprocess.run(command, env={**os.environ, "FUZZ_TARGET": name}, check=False).returncode:
            broken.append(name)
    print(f"broken: {', '.join(broken)}" if broken else "nothing broke")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
