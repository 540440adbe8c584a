"""``rvpo report --live``: serve the page of a run that still trains. The page is rebuilt when the logs change."""

from __future__ import annotations

import html
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rvpo.errors import ConfigError, RVPOError

logger = logging.getLogger(__name__)

SECONDS = 5  # between two reloads of a page that waits for logs
CONNECTIONS = 16  # served at the same time; a browser opens about six
TIMEOUT = 10.0  # seconds for a request to arrive, and for a client to read the answer
_HEADERS = {
    "Cache-Control": "no-store",
    # In addition to the page's own policy: these work only in a header, or before the page is read.
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_WAITING = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="{seconds}">'
    "<title>rvpo report</title><body><h1>Nothing to show yet</h1><p>{reason}</p><p>This page reloads every "
    "{seconds} seconds.</p></body></html>"
)


class LivePage:
    """The newest page. It is rebuilt only when the logs have changed.

    Attributes:
        paths: files and folders of the logs.
    """

    def __init__(self, paths: Sequence[Path], make: Callable[[], str]) -> None:
        """Keep ``make``, which reads the logs and returns the page."""
        self.paths = list(paths)
        self._make, self._lock = make, threading.Lock()
        self._state: object = None
        self._text: str | None = None

    def text(self) -> str:
        """Return the newest page.

        If it cannot be built, for example while a file is being written, return the last page that could. If there has
        not been one, return a page that says why and reloads itself.
        """
        with self._lock:
            state = self._logs_state()
            if self._text is None or state != self._state:
                try:
                    self._text, self._state = self._make(), state
                except Exception as error:  # whatever the logs contain, a page that could be built is kept
                    known = isinstance(error, RVPOError)
                    logger.log(logging.INFO if known else logging.WARNING, "no new page: %s", error, exc_info=not known)
                    if self._text is None:
                        return _WAITING.format(seconds=SECONDS, reason=html.escape(str(error)))
            return self._text

    def _logs_state(self) -> object:
        """Return names, sizes and modification times of the log files: a value that changes with the logs."""
        found = [file for path in self.paths for file in (path.rglob("*") if path.is_dir() else [path])]
        logs = [file for file in found if file.suffix in (".parquet", ".jsonl")]
        state = []
        for file in sorted(logs):
            try:
                stat = file.stat()
            except OSError:  # the file was removed in the meantime
                continue
            state.append((str(file), stat.st_size, stat.st_mtime_ns))
        return state


def server(page: LivePage, host: str, port: int) -> ThreadingHTTPServer:
    """Return a server of the page. The caller runs and closes it.

    On a loopback address, only requests whose header Host names that address are answered. So no other web page can
    read the run through the reader's browser, and none may show it in a frame. At most :data:`CONNECTIONS` are served
    at the same time. A connection that is silent for :data:`TIMEOUT` seconds is closed.

    Args:
        page: page to serve at ``/``.
        host: address to listen on.
        port: TCP port; 0 takes any free one.

    Raises:
        ConfigError: the port is taken, or the host is not an address of this machine.
    """
    local = {"localhost", "127.0.0.1", "::1"}

    class Handler(BaseHTTPRequestHandler):
        timeout = TIMEOUT
        server_version, sys_version = "rvpo", ""

        def do_GET(self) -> None:
            try:
                name = urlsplit(f"//{self.headers.get('Host', '')}").hostname
            except ValueError:
                return self._answer(400, "the header Host is not a valid name")
            if host in local and name not in local:
                return self._answer(403, "the header Host does not name this machine")
            if self.path.partition("?")[0] not in ("/", "/index.html"):
                return self._answer(404, "not found; the only page is /")
            return self._answer(200, page.text(), "text/html")

        def _answer(self, code: int, text: str, kind: str = "text/plain") -> None:
            body = text.encode("utf-8", "replace")
            self.send_response(code)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            for header, value in _HEADERS.items():
                self.send_header(header, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
            """Answer an unknown request with a line of text instead of the base class's page."""
            self.close_connection = True
            self._answer(code, "expected GET / of HTTP")

        do_HEAD = do_GET  # noqa: N815 (the base class's name)

        def log_message(self, format: str, *args: Any) -> None:
            logger.debug(format, *args)

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        daemon_threads = True
        free = threading.BoundedSemaphore(CONNECTIONS)

        def process_request(self, request: Any, client_address: Any) -> None:
            if self.free.acquire(blocking=False):
                try:
                    super().process_request(request, client_address)
                except BaseException:  # no thread could be started
                    self.free.release()
                    raise
            else:
                self.shutdown_request(request)

        def process_request_thread(self, request: Any, client_address: Any) -> None:
            try:
                super().process_request_thread(request, client_address)
            finally:
                self.free.release()

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Log a connection that failed, for example because the browser closed it. No action is needed."""
            logger.debug("a connection from %s ended early", client_address, exc_info=True)

    try:
        return Server((host, port), Handler)
    except OSError as error:
        raise ConfigError(
            f"{host}:{port} cannot be served ({error.strerror}); choose another --port, or 0 for any free one"
        ) from error
