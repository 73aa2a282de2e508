"""Runs the gateway under uvicorn, in one process or several."""

import os
import shutil
import tempfile
from collections.abc import Callable

import uvicorn
from uvicorn.supervisors import Multiprocess

from aigate.operations import SHARED_FOLDER
from aigate.settings import Settings
from middleware.asgi import ASGIApp

KEEP_ALIVE = 75
"""Seconds that an idle connection stays open: longer than load balancers keep theirs (60), so that they end it."""
BACKLOG = 4096


def config(settings: Settings, app: ASGIApp | str = "aigate.app:create") -> uvicorn.Config:
    """uvicorn's configuration: its own logging and headers off, bounded HTTP, a deadline for shutting down."""
    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        loop="aigate.loop:new_loop",
        http="aigate.server:BoundedProtocol",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=round(settings.shutdown_timeout),
    )


def serve(settings: Settings, *, started: Callable[[int], None] = lambda port: None) -> None:
    """Serve until SIGINT or SIGTERM; `started` is called with the port once it accepts requests (one worker only)."""
    if settings.workers > 1:
        _serve_several(settings)
    else:
        _Server(config(settings), started).run()


def _serve_several(settings: Settings) -> None:
    """Workers add their metrics up through files in a folder that they learn of as they start."""
    folder = tempfile.mkdtemp(prefix="aigate-metrics-")
    os.environ[SHARED_FOLDER] = folder
    try:
        configuration = config(settings)
        Multiprocess(configuration, [configuration.bind_socket()]).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Server(uvicorn.Server):
    def __init__(self, configuration: uvicorn.Config, started: Callable[[int], None]) -> None:
        super().__init__(configuration)
        self._tell_started = started

    async def startup(self, sockets: "list[object] | None" = None) -> None:  # type: ignore[override]
        await super().startup(sockets)  # type: ignore[arg-type]
        if self.started:
            self._tell_started(self.servers[0].sockets[0].getsockname()[1])
