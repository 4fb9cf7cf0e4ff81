"""MLflow's server as `violence-ops up` starts it: every user of this machine may look, who started it and root may write.

MLflow asks nobody for a password. Who may write to it can have it read and write any file of the user that it runs as, by the
place of an experiment's artifacts, and can exchange the code of a model. So a request that is more than a look is taken only if the
system says that the other end of its connection belongs to that user.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_LOOKS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_SEARCH: Final = re.compile(r"/(ajax-)?api/[0-9.]+/mlflow/([a-z-]+/search(-datasets)?|traces/metrics)|/graphql")
"""What MLflow's pages ask by POST and changes nothing."""
_CONNECTED: Final = "01"
_TABLE: Final = Path("/proc/net/tcp")


class OwnerWrites:
    """An ASGI application of which users other than the server's own, and root, can only ask."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or _is_look(scope) or user_of(scope) in (0, os.geteuid()):
            await self._app(scope, receive, send)
            return
        from starlette.responses import PlainTextResponse

        refusal = "Only the user that runs this MLflow, and root, may change something here: ask them.\n"
        await PlainTextResponse(refusal, 403)(scope, receive, send)


def user_of(scope: Scope) -> int | None:
    """The id of the user whose socket is the other end of a request's connection over IPv4 loopback; None if that has closed it.

    Only a connection that stands counts: of one that its program has closed, the system names root as the user.
    """
    client, server = scope.get("client"), scope.get("server")
    if not client or not server:
        return None
    ends = [_hexadecimal(*client), _hexadecimal(*server)]
    for line in _TABLE.read_text("ascii").splitlines()[1:]:
        _, local, remote, state, _, _, _, user, *_ = line.split()
        if [local, remote] == ends:
            return int(user) if state == _CONNECTED else None
    return None


def _is_look(scope: Scope) -> bool:
    return scope["type"] == "http" and (scope["method"] in _LOOKS or bool(_SEARCH.fullmatch(scope["path"])))


def _hexadecimal(address: str, port: int) -> str:
    """An end of a connection as Linux writes it down."""
    return f"{struct.unpack('=I', socket.inet_aton(address))[0]:08X}:{port:04X}"


def main(host: str, port: str, database: str, artifacts: str) -> None:
    """Serve on a loopback address of IPv4 until a signal ends it: the records in `database` (`sqlite:///…`), the files in the folder `artifacts`."""
    from mlflow import server

    root = "mlflow-artifacts:/"  # of experiments that name no other
    os.environ |= {
        server.BACKEND_STORE_URI_ENV_VAR: database,
        server.ARTIFACT_ROOT_ENV_VAR: root,
        server.ARTIFACTS_DESTINATION_ENV_VAR: artifacts,
        server.SERVE_ARTIFACTS_ENV_VAR: "true",
    }
    import uvicorn
    from mlflow.server.fastapi_app import app
    from mlflow.server.handlers import initialize_backend_stores

    initialize_backend_stores(database, database, root)
    # a proxy's word for where a request comes from is anybody's
    uvicorn.run(OwnerWrites(app), host=host, port=int(port), proxy_headers=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
