"""A server with aiohttp, prometheus-client and nothing else; the argument is the port."""

import sys

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client.aiohttp import make_aiohttp_handler


def serve(handler: Handler, port: int) -> None:
    """Serve metrics until the process is terminated."""
    app = web.Application()
    app.router.add_get("/metrics", handler)
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


if __name__ == "__main__":
    serve(make_aiohttp_handler(), int(sys.argv[1]))
