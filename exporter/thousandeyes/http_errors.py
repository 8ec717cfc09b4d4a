"""Mapping of failed requests to the closed reasons; messages contain no address and no secret."""

import os
import ssl
from http.client import responses

import aiohttp

from exporter.errors import PollError, Reason

_STATUS_REASONS: dict[int, Reason] = {
    401: "auth",
    403: "forbidden",
    404: "not_found",
    407: "proxy",
    429: "rate_limited",
    503: "maintenance",
}


def status_error(status: int, route: str) -> PollError:
    """Return the error of a response with a status other than 200."""
    default: Reason = "protocol"
    if status >= 500:
        default = "server_error"
    elif 300 <= status < 400:
        default = "redirect"
    message = f"{route}: HTTP status {status} {responses.get(status, '')}".rstrip()
    return PollError(_STATUS_REASONS.get(status, default), message, status)


def transport_error(error: Exception, *, proxied: bool) -> PollError:
    """Return the error of a request without a valid response."""
    errno = getattr(error, "errno", None) or 0
    detail = f": {os.strerror(errno).lower()}" if errno > 0 else ""
    reason: Reason
    match error:
        case aiohttp.ClientHttpProxyError():
            reason, message = "proxy", f"the proxy refused the request: HTTP status {error.status}"
        case aiohttp.ClientConnectorError(os_error=ssl.SSLCertVerificationError() as cause):
            message = f"TLS certificate verification failed: {cause.verify_message}"
            reason = "tls"
        case aiohttp.ClientConnectorError(os_error=ssl.SSLError() as cause):
            failure = (cause.reason or "unknown error").replace("_", " ").lower()
            reason, message = "tls", f"TLS handshake failed: {failure}"
        case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError() if proxied:
            reason, message = "proxy", f"cannot connect to the proxy{detail}"
        case aiohttp.ClientConnectorDNSError():
            reason, message = "dns", "cannot resolve the host name of the API"
        case aiohttp.ConnectionTimeoutError():
            reason, message = "timeout", "connecting to the API timed out"
        case aiohttp.ClientConnectorError():
            reason, message = "connect", f"cannot connect to the API{detail}"
        case TimeoutError():
            reason, message = "timeout", "the API did not respond in time"
        case aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError():
            reason, message = "reset", "the connection was closed before the end of the response"
        case OSError():
            reason, message = "reset", f"the connection to the API was lost{detail}"
        case _:
            reason, message = "protocol", "the response is not valid HTTP"
    return PollError(reason, message)
