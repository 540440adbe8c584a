"""The server of `report --live`: bounded, not to be framed, and silent about requests that are none."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from rvpo.page.live import CONNECTIONS, LivePage, server


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    served = server(LivePage([tmp_path], lambda: "<!doctype html>the page"), "127.0.0.1", 0)
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield served.server_address[1]
    served.shutdown()
    served.server_close()
    thread.join()


def get(port: int, method: str = "GET", path: str = "/", host: str = "localhost") -> tuple[int, dict[str, str], bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, headers={"Host": host})
    answer = connection.getresponse()
    found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    connection.close()
    return found


@pytest.mark.parametrize(
    ("method", "path", "host", "status"),
    [("GET", "/", "localhost", 200), ("GET", "/no", "localhost", 404), ("GET", "/", "evil.example", 403),
     ("POST", "/", "localhost", 501), ("HEAD", "/", "127.0.0.1", 200)],
)  # fmt: skip
def test_no_answer_may_be_framed_or_read_elsewhere(port: int, method: str, path: str, host: str, status: int):
    code, headers, _ = get(port, method, path, host)
    assert code == status
    assert headers["content-security-policy"] == "frame-ancestors 'none'"
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert "python" not in headers["server"].lower()


@pytest.mark.parametrize(
    "request_",
    [
     b"\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET //[ HTTP/1.1\r\n"
     b"Host: localhost\r\n\r\n", b"GET / HTTP/1.1\r\nHost: [\r\n\r\n",
     b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n",
     b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
     b"\x1b[31m / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n\xff\xfe\r\n\r\n"],
)  # fmt: skip
def test_odd_requests_leave_no_word_behind(port: int, request_: bytes, capfd: pytest.CaptureFixture[str]):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as one:
        one.sendall(request_)
        one.shutdown(socket.SHUT_WR)
        try:
            while one.recv(65536):
                pass
        except ConnectionError:  # it need not read to the end
            pass
    assert get(port)[0] == 200
    assert capfd.readouterr() == ("", "")


def test_connections_beyond_the_bound_are_closed_and_later_ones_served(port: int, capfd: pytest.CaptureFixture[str]):
    silent = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(CONNECTIONS)]
    try:
        for one in silent:
            one.sendall(b"GET / HTTP/1.1\r\n")  # and no end
        with socket.create_connection(("127.0.0.1", port), timeout=20) as another:
            assert another.recv(100) == b""
    finally:
        for one in silent:
            one.close()
    for _ in range(100):
        try:
            assert get(port)[0] == 200
            break
        except ConnectionError:
            continue  # the threads of the closed ones still end
    else:
        raise AssertionError("no connection was served after the others had gone")
    assert capfd.readouterr() == ("", "")
