"""Health check of the image: exit code 0 if the exporter in this container is healthy.

The address is taken from the settings of process 1: its command line, the environment, and the
settings file. An optional argument is the path to request instead of `/-/healthy`.
"""

import os
import ssl
import sys
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path

import yaml

from exporter.settings import load

LOOPBACK = {None: "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104

command = Path("/proc/1/cmdline").read_text(encoding="utf-8").split("\0")[:-1]
start = next(i for i, word in enumerate(command) if word.endswith("/thousandeyes-exporter"))
web = load(command[start + 1 :], os.environ).settings.web
config = yaml.safe_load(web.config_file.read_bytes()) if web.config_file else None
tls = "tls_server_config" in (config or {})
host = LOOPBACK.get(web.listen_address.host, web.listen_address.host) or ""
connection = (
    # The certificate is not issued for the loopback address, and nothing secret is sent.
    HTTPSConnection(
        host,
        web.listen_address.port,
        timeout=4,
        context=ssl._create_unverified_context(),  # noqa: S323
    )
    if tls
    else HTTPConnection(host, web.listen_address.port, timeout=4)
)
try:
    connection.request("GET", sys.argv[1] if len(sys.argv) > 1 else "/-/healthy")
    response = connection.getresponse()
except (OSError, HTTPException) as error:
    # A server that requires a client certificate ends the connection, so it is running.
    rejected = isinstance(error, ssl.SSLError | ConnectionResetError | BrokenPipeError)
    sys.exit(0 if tls and rejected else f"no response: {error}")
# 401 and 429: the server is running and requires authentication, or limits requests.
sys.exit(0 if response.status in (200, 401, 429) else response.read(200).decode())
