"""Mapping of failed requests to the closed reasons; messages contain no address and no secret."""

import os
import ssl
from http.client import responses

import aiohttp

from exporter.errors import HINTS, PollError, Reason
from exporter.files import open_files_hint
from exporter.metrics.self_metrics import OrganizationLimits

_NO_TLS = "check scheme and port of api.url or api.proxy: the server does not speak TLS"
_NO_HTTP = "check scheme and port of api.url, and proxies: the server does not speak HTTP"
_NO_TLS_REASONS = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}
_NO_REQUESTS = "ask ThousandEyes to raise the organization's limit of API requests"
_STATUS_REASONS: dict[int, Reason] = {
    2: "content_type",  # the API answers with 200 only
    3: "redirect",
    4: "protocol",
    5: "server_error",
    401: "auth",
    403: "forbidden",
    404: "not_found",
    407: "proxy",
    429: "rate_limited",
    503: "maintenance",
}
"""Reasons of statuses, and of the first digit of all others."""


def status_error(status: int, route: str, limits: OrganizationLimits) -> PollError:
    """Return the error of a response with a status other than 200."""
    reason = _STATUS_REASONS.get(status) or _STATUS_REASONS.get(status // 100, "protocol")
    message, hint = f"{route}: HTTP status {status} {responses.get(status, '')}".rstrip(), ""
    if status == 429 and limits.limit is not None:
        message += f"; the organization's limit is {limits.limit:.0f} requests per minute"
        hint = "" if limits.limit else _NO_REQUESTS
    return PollError(reason, message, status, hint)


def transport_error(error: Exception, *, proxied: bool) -> PollError:
    """Return the error of a request without a valid response."""
    errno = getattr(error, "errno", None) or 0
    detail = f": {os.strerror(errno).lower()}" if errno > 0 else ""
    hint = open_files_hint(error)
    reason: Reason
    match error:
        case OSError() if hint:
            reason, message = "connect", f"cannot open a connection{detail}"
        case aiohttp.ClientHttpProxyError():
            reason, message = "proxy", f"the proxy refused the request: HTTP status {error.status}"
        case aiohttp.ClientConnectorError(os_error=ssl.SSLCertVerificationError() as cause):
            message = f"TLS certificate verification failed: {cause.verify_message}"
            reason = "tls"
        case aiohttp.ClientConnectorError(os_error=ssl.SSLError() as cause):
            failure = (cause.reason or "unknown error").replace("_", " ").lower()
            reason, message = "tls", f"TLS handshake failed: {failure}"
            hint = _NO_TLS if cause.reason in _NO_TLS_REASONS else ""
        case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError() if proxied:
            reason, message = "proxy", f"cannot connect to the proxy{detail}"
        case aiohttp.ClientConnectorDNSError():
            reason, message = "dns", "cannot resolve the host name of the API"
        case aiohttp.ConnectionTimeoutError():
            reason, message = "timeout", "connecting to the API timed out"
            hint = HINTS["connect"]
        case aiohttp.ClientConnectorError():
            reason, message = "connect", f"cannot connect to the API{detail}"
        case TimeoutError():
            reason, message = "timeout", "the API did not respond in time"
        case aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError():
            reason, message = "reset", "the connection was closed before the end of the response"
        case OSError():
            reason, message = "reset", f"the connection to the API was lost{detail}"
        case _:
            reason, message, hint = "protocol", "the response is not valid HTTP", _NO_HTTP
    return PollError(reason, message, hint=hint)
