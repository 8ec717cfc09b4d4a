"""What a setting's value may be: texts as users write them, checked and turned into values.

Which settings there are, and where their texts come from, is left to `exporter.settings`. Flags, variables and the file
all give texts, so a value means the same in each of them. A validator raises ValueError with what would be right, never
with the value itself.
"""

import ipaddress
import json
import re
import ssl
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, PlainValidator, SecretStr

MAX_FILE_BYTES = 1_000_000
MIN_KEY_LENGTH = 16

Seconds = float
_UNITS = {"y": 31_536_000_000, "w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_DURATION = re.compile("".join(f"(?:([0-9]{{1,9}}){unit})?" for unit in _UNITS))


def written_duration(seconds: Seconds) -> str:
    """Write seconds as Prometheus writes a duration: 90.5 is `1m30s500ms`, 0 is `0s`."""
    text, rest = "", round(seconds * 1000)
    for unit, milliseconds in _UNITS.items():
        count, rest = divmod(rest, milliseconds)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def read_duration(text: str) -> Seconds:
    """Read a duration; what is none is NaN. `0` alone needs no unit, as in Prometheus."""
    match = _DURATION.fullmatch(text)
    if not match or not text:
        return 0.0 if text == "0" else float("nan")
    return sum(int(count or 0) * unit for count, unit in zip(match.groups(), _UNITS.values(), strict=True)) / 1000


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where to listen: `host` None is every address of the machine, `port` 0 is any free one."""

    host: str | None
    port: int

    def __str__(self) -> str:
        host = self.host or ""
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


def is_loopback(host: str) -> bool:
    """Tell whether packets to a host never leave this machine."""
    return address.is_loopback if (address := _address(host)) else host == "localhost"


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def text(wanted: str, parse: Callable[[str], object]) -> PlainValidator:
    """Accept a text of which `parse` makes a value; where it makes None, the text is not as `wanted`."""

    def validate(value: object) -> object:
        parsed = parse(value) if isinstance(value, str) else None
        if parsed is None:
            raise ValueError(f"must be {wanted}")
        return parsed

    return PlainValidator(validate)


def matching(pattern: str, wanted: str) -> PlainValidator:
    """Accept a text that the pattern matches whole."""
    return text(wanted, lambda value: value if re.fullmatch(pattern, value) else None)


def duration(low: str, high: str) -> PlainValidator:
    """Accept a duration from `low` to `high`; its value is seconds."""
    least, most = read_duration(low), read_duration(high)
    return text(
        f"a duration from {low} to {high}, such as 30s, 5m or 1h30m",
        lambda value: seconds if least <= (seconds := read_duration(value)) <= most else None,
    )


def integer(low: int, high: int) -> PlainValidator:
    """Accept a whole number from `low` to `high`."""
    return text(
        f"a whole number from {low} to {high}",
        lambda value: number if re.fullmatch("[0-9]{1,9}", value) and low <= (number := int(value)) <= high else None,
    )


def word_or_items(*words: str, item: str, wanted: str) -> PlainValidator:
    """Accept one of the words alone, or a list of items that match, each once."""

    def validate(value: object) -> object:
        if value in words:
            return value
        items = _items(value)
        if not all(isinstance(each, str) and re.fullmatch(item, each) for each in items):
            raise ValueError(f"must be {wanted}")
        if len(set(items)) < len(items):
            raise ValueError("names one of them twice")
        return tuple(items)

    return PlainValidator(validate)


def _items(value: object) -> list[object]:
    """Accept a list: one of the file, or one text of JSON or separated by commas.

    `[a-z]+` is a regular expression and no JSON; the comma in `{1,3}` separates nothing.
    """
    if isinstance(value, str):
        is_json = re.match(r'\[\s*["{]|\[[\s0-9,]*\]$', value)
        value = _json(value) if is_json else [part.strip() for part in re.split(r",(?![^{]*})", value)]
    if not isinstance(value, list):
        raise ValueError("must be a list: JSON or separated by commas")  # noqa: TRY004  pydantic collects no TypeError
    if "" in value:
        raise ValueError("has an empty item")
    return value


def _mapping(value: object) -> object:
    return _json(value) if isinstance(value, str) else value


def _json(value: str) -> object:
    """Read JSON whose numbers stay texts."""
    try:
        return json.loads(value, parse_int=str, parse_float=str, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} at position {error.pos}") from None
    except RecursionError:
        raise ValueError("is not JSON: nested too deeply") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("names a key twice")
    return found


def _pattern(value: str) -> re.Pattern[str]:
    try:
        with warnings.catch_warnings(action="error"):
            return re.compile(value)
    except (re.error, FutureWarning, OverflowError) as error:
        raise ValueError(f"is no regular expression: {error}") from None
    except RecursionError:
        raise ValueError("is no regular expression: nested too deeply") from None


def _listen_address(value: str) -> ListenAddress | None:
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]*)):([0-9]{1,5})", value)
    if not match or int(match[3]) > 65535 or (match[1] and not _address(match[1])):
        return None
    return ListenAddress(match[1] or match[2] or None, int(match[3]))


def _url(value: str) -> str | None:
    """Accept an address of scheme, host and port alone; the last slash goes."""
    try:
        parts = urlsplit(value if re.fullmatch("[!-~]+", value) else "")
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return None
    if "@" in parts.netloc:
        raise ValueError("must not hold a user or a password")
    if re.fullmatch("/v[0-9]+/?", parts.path):
        raise ValueError("must be without a version: that is api.version")
    bare = (
        re.fullmatch(r"[A-Za-z0-9.:\[\]_-]+", parts.netloc) and parts.path in ("", "/") and not set("?#") & set(value)
    )
    return f"{parts.scheme}://{parts.netloc}" if usable and bare else None


def _proxy(value: str) -> SecretStr | None:
    match = re.fullmatch(r"(https?://)(?:[^/?#@]+@)?(.+)", value)
    try:
        return SecretStr(value) if match and _url(match[1] + match[2]) else None
    except ValueError:
        return None


def content(path: Path) -> bytes:
    """Read a small file. Raises ValueError where it can not be read or is too large."""
    try:
        with path.open("rb") as file:
            found = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ValueError(f"can not be read: {error.strerror}") from None
    if len(found) > MAX_FILE_BYTES:
        raise ValueError(f"is larger than {MAX_FILE_BYTES} bytes")
    return found


def _readable(path: Path) -> Path:
    content(path)
    return path


def _certificates(path: Path) -> Path:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(_readable(path))
    except ssl.SSLError:
        raise ValueError("holds no certificate in PEM format") from None
    return path


def _secret(value: object, *, least: int = 1) -> str:
    """Accept a secret; its line end goes."""
    bare = value.rstrip("\r\n") if isinstance(value, str) else ""
    if not re.fullmatch("[!#-&(-~]{1,4096}", bare):
        raise ValueError("must be the bare secret: one line of ASCII, without spaces, quotes and byte order mark")
    if len(bare) < least:
        raise ValueError(f"must have at least {least} characters")
    return bare


def secret_content(path: Path, *, least: int = 1) -> str:
    """Read the secret that is all of a file. Raises ValueError without any of it."""
    return _secret(content(path).decode("ascii", "replace"), least=least)


def _secret_file(path: Path, *, least: int = 1) -> Path:
    secret_content(path, least=least)
    return path


Boolean = Annotated[bool, text("true or false", {"true": True, "false": False}.get)]
Email = Annotated[str, matching(r"[^\s:@]+@[^\s:@]+", "an e-mail address")]
Pattern = Annotated[re.Pattern[str], text("a regular expression", _pattern)]
Items = BeforeValidator(_items)
Mapping = BeforeValidator(_mapping)
Listen = Annotated[ListenAddress, text("host:port, :port or [IPv6]:port, the port from 0 to 65535", _listen_address)]
Url = Annotated[
    str, text("an address such as https://api.thousandeyes.com, with nothing after the host and port", _url)
]
Proxy = Annotated[SecretStr, text("an address such as http://user:password@proxy:3128", _proxy)]
File = Annotated[Path, AfterValidator(_readable)]
CertificatesFile = Annotated[Path, AfterValidator(_certificates)]
Secret = Annotated[SecretStr, BeforeValidator(_secret)]
SecretFile = Annotated[Path, AfterValidator(_secret_file)]
Key = Annotated[SecretStr, BeforeValidator(partial(_secret, least=MIN_KEY_LENGTH))]
KeyFile = Annotated[Path, AfterValidator(partial(_secret_file, least=MIN_KEY_LENGTH))]
