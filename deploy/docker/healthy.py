"""Asks the exporter of this container whether it is healthy; exit code 0 when it is. The image's HEALTHCHECK.

Where it listens is read as it reads it: from the command line of process 1, the variables, and the settings file.
An argument is another path to ask, such as /-/ready.
"""

import os
import ssl
import sys
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path

import yaml

from exporter.settings import load

command = Path("/proc/1/cmdline").read_text(encoding="utf-8").split("\0")[:-1]
start = next(place for place, word in enumerate(command) if word.endswith("/thousandeyes-exporter"))
web = load(command[start + 1 :], os.environ).settings.web
tls = web.config_file and "tls_server_config" in (yaml.safe_load(web.config_file.read_bytes()) or {})
host = {None: "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(web.listen_address.host, web.listen_address.host)  # noqa: S104
address = (host or "", web.listen_address.port)
connection = (
    # Its certificate has the name that others know, and nothing secret is sent.
    HTTPSConnection(*address, timeout=4, context=ssl._create_unverified_context())  # noqa: S323
    if tls
    else HTTPConnection(*address, timeout=4)
)
try:
    connection.request("GET", sys.argv[1] if len(sys.argv) > 1 else "/-/healthy")
    answer = connection.getresponse()
except (OSError, HTTPException) as error:
    # It wants a client's certificate, which only a living one can want: its alert may come, or only the end.
    refused = tls and isinstance(error, (ssl.SSLError, ConnectionResetError, BrokenPipeError))
    sys.exit(0 if refused else f"no answer: {error}")
# 401: or a password; 429: or fewer requests.
sys.exit(0 if answer.status in (200, 401, 429) else answer.read(200).decode())
