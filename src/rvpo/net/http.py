"""One HTTP request to a server that may do anything: a bounded response, or why there is none.

A server may answer with what is no HTTP, never end its answer, compress a gigabyte into a kilobyte, send elsewhere, or
repeat the key. So at most :data:`MAX_BYTES` are read and kept, packed or unpacked; a redirect to another server is not
followed, because the key would go along; no cookies are kept; and whatever the client library raises becomes a
:class:`TransportError`.
"""

from __future__ import annotations

import asyncio
import json
import urllib.request
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp

from rvpo.net.failures import TooLongError, TransportError

MAX_BYTES = 1 << 20  # of a response: a reply of 100,000 tokens with its usage is under half of that
MAX_REDIRECTS = 3  # within the server, such as to the same path with a slash
CONNECT_SECONDS = 10.0  # a server that cannot even be connected to in this time is down


@dataclass(frozen=True, slots=True)
class Response:
    """What came back.

    Attributes:
        status: of HTTP.
        headers: by lower-case name.
        text: the body, with what is no UTF-8 replaced.
    """

    status: int
    headers: Mapping[str, str]
    text: str


class Connection:
    """Requests to one server with one key, for one event loop."""

    def __init__(self, base_url: str, headers: Mapping[str, str], timeout: float) -> None:
        """Prepare; nothing is connected yet.

        Args:
            base_url: such as ``http://localhost:8000/v1``.
            headers: of every request, the key among them.
            timeout: seconds for a request as a whole.
        """
        self.url = base_url.rstrip("/")
        self._headers, self._timeout = dict(headers), timeout
        self._session: aiohttp.ClientSession | None = None
        self._proxy = _proxy_for(self.url)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Response:
        """Ask once.

        Raises:
            TransportError: no response, or one that is longer than anything that is read here.
        """
        try:
            async with asyncio.timeout(self._timeout):  # the client's own limits begin anew with each byte
                return await self._request(method, path, body)
        except TransportError:
            raise
        except Exception as error:
            # The library's exceptions carry the request with its headers, so none goes on.
            raise self._failure(error) from None

    async def _request(self, method: str, path: str, body: Mapping[str, Any] | None) -> Response:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, connect=min(self._timeout, CONNECT_SECONDS)),
                auto_decompress=False,
                headers={**self._headers, "accept": "application/json", "accept-encoding": "gzip, deflate, identity"},
            )
        data = None if body is None else json.dumps(body).encode()
        content = {} if data is None else {"content-type": "application/json"}
        url = f"{self.url}{path}"
        for _ in range(MAX_REDIRECTS + 1):
            async with self._session.request(
                method, url, data=data, headers=content, allow_redirects=False, proxy=self._proxy
            ) as answer:
                headers = {name.lower(): value for name, value in answer.headers.items()}
                packed = await _bounded(answer.content)
                response = Response(answer.status, headers, _unpacked(packed, headers.get("content-encoding", "")))
            onwards = _redirected(url, method, response)
            if onwards is None:
                return response
            url = onwards
        return response

    def _failure(self, error: Exception) -> TransportError:
        causes = _causes(error)
        if any(isinstance(cause, TimeoutError) for cause in causes):
            return TransportError("timeout", f"no answer within {self._timeout:g} s", again=True)
        free = any(isinstance(cause, aiohttp.ClientConnectorError) for cause in causes)  # never connected
        return TransportError("connection", f"connection failed ({type(causes[-1]).__name__})", again=True, free=free)


def _redirected(url: str, method: str, response: Response) -> str | None:
    """Return where a response sends a request on the same server; None where it does not, or to another server."""
    again = response.status in (307, 308) or (response.status in (301, 302) and method == "GET")
    target = response.headers.get("location")
    if not again or not target:
        return None
    try:
        onwards = urljoin(url, target)
        here, there = urlsplit(url), urlsplit(onwards)
        same = (here.scheme, here.hostname, here.port) == (there.scheme, there.hostname, there.port)
    except ValueError:
        return None
    return onwards if same and "@" not in there.netloc else None


async def _bounded(stream: aiohttp.StreamReader) -> bytes:
    """Return a body, or refuse it as soon as it is too long."""
    kept = bytearray()
    async for part in stream.iter_any():
        kept += part
        if len(kept) > MAX_BYTES:
            raise TooLongError("malformed", f"a response of more than {MAX_BYTES} bytes", again=True)
    return bytes(kept)


def _unpacked(packed: bytes, encoding: str) -> str:
    """Return a body as text; of a packed one, no more than the limit is ever unpacked."""
    name = encoding.strip().lower()
    data = packed
    if name not in ("", "identity"):
        if name not in ("gzip", "x-gzip", "deflate"):
            raise TransportError("malformed", f"a response packed by {name[:40]!r}, which nobody asked for", again=True)
        windows = (zlib.MAX_WBITS | 16,) if "gzip" in name else (zlib.MAX_WBITS, -zlib.MAX_WBITS)
        data = _inflated(packed, windows)
    return data.decode("utf-8", "replace")


def _inflated(packed: bytes, windows: tuple[int, ...]) -> bytes:
    for bits in windows:  # deflate is sent with and without its header
        unpacker = zlib.decompressobj(bits)
        try:
            data = unpacker.decompress(packed, MAX_BYTES + 1)
        except zlib.error:
            continue
        if len(data) > MAX_BYTES:
            raise TooLongError("malformed", f"a response of more than {MAX_BYTES} bytes once unpacked", again=True)
        return data
    raise TransportError("malformed", "a packed response that is damaged", again=True)


def _proxy_for(url: str) -> str | None:
    """Return the proxy that the environment names for a server, as other clients do."""
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


def _causes(error: BaseException) -> list[BaseException]:
    """Return an exception, its cause, the cause of that, and so on."""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) and cause not in causes:
        causes.append(cause)
    return causes
