"""HTTP requests to a server that may be hostile. The result is a bounded response, or an error with the reason.

A server may answer with something that is not HTTP, never end its answer, compress a gigabyte into a kilobyte, redirect
elsewhere, or repeat the key. So at most :data:`MAX_BYTES` are read, compressed or not. Redirects to another server are
not followed, because the key would be sent there. Cookies are not kept. Every exception of the client library becomes a
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

MAX_BYTES = 1 << 20  # maximum size of a response; a reply of 100,000 tokens with its usage needs less than half
MAX_REDIRECTS = 3  # within the same server, such as to the same path with a slash
CONNECT_SECONDS = 10.0  # a server that does not accept a connection in this time is down


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response.

    Attributes:
        status: status code.
        headers: headers by lower-case name.
        text: body as text. Bytes that are not UTF-8 are replaced.
    """

    status: int
    headers: Mapping[str, str]
    text: str


class Connection:
    """Requests to one server with one key, for one event loop."""

    def __init__(self, base_url: str, headers: Mapping[str, str], timeout: float) -> None:
        """Prepare the connection without opening it.

        Args:
            base_url: URL of the server, such as ``http://localhost:8000/v1``.
            headers: headers of every request, including the key.
            timeout: time limit for a whole request, in seconds.
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
        """Send one request, without retries.

        Args:
            method: HTTP method.
            path: path after the base URL, such as ``/models``.
            body: content of the request, sent as JSON.

        Raises:
            TransportError: the server gave no response, or one that is too long.
        """
        try:
            async with asyncio.timeout(self._timeout):  # the client's own time limits start again with each byte
                return await self._request(method, path, body)
        except TransportError:
            raise
        except Exception as error:
            # The library's exceptions contain the request with its headers and key, so they are not passed on.
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
    """Return the URL of a redirect within the same server; None without a redirect, or for another server."""
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
    """Return a body. Stop reading as soon as it is too long."""
    kept = bytearray()
    async for part in stream.iter_any():
        kept += part
        if len(kept) > MAX_BYTES:
            raise TooLongError("malformed", f"a response of more than {MAX_BYTES} bytes", again=True)
    return bytes(kept)


def _unpacked(packed: bytes, encoding: str) -> str:
    """Return a body as text. Never unpack more than the limit."""
    name = encoding.strip().lower()
    data = packed
    if name not in ("", "identity"):
        if name not in ("gzip", "x-gzip", "deflate"):
            seen = f"a response compressed by {name[:40]!r}, which was not requested"
            raise TransportError("malformed", seen, again=True)
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
            raise TooLongError("malformed", f"a response of more than {MAX_BYTES} bytes after unpacking", again=True)
        return data
    raise TransportError("malformed", "a compressed response that is damaged", again=True)


def _proxy_for(url: str) -> str | None:
    """Return the proxy for a server from the environment, as other HTTP clients do."""
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


def _causes(error: BaseException) -> list[BaseException]:
    """Return an exception and its chain of causes."""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) and cause not in causes:
        causes.append(cause)
    return causes
