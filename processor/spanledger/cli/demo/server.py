"""A loopback server that speaks the wire protocols of OpenAI, Anthropic and Scavio.

    with ProviderServer() as server:
        client = OpenAI(base_url=f"{server.url}/v1", api_key="any")
        ...
        server.requests[0].headers["traceparent"]

Anthropic's and Scavio's clients take `server.url` itself. `spanledger.cli.demo.wire` lists the
faults that a request can provoke. A geocoder (`GET /geocode?q=...`) stands for the paid APIs that
have no SDK.
"""

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final, Self, cast
from urllib.parse import parse_qsl, urlsplit

from spanledger.cli.demo.anthropic_wire import AnthropicWire
from spanledger.cli.demo.openai_wire import OpenAIWire
from spanledger.cli.demo.scavio_wire import ScavioWire
from spanledger.cli.demo.wire import Json, Reply, Request, Wire, draw

RETRY_AFTER_S: Final = 0.02
_EVENTS_BEFORE_CUT: Final = 4


class ProviderServer:
    """The server, on an ephemeral port of 127.0.0.1.

    pace: seconds to an answer and, in a stream, a fifth of it between two events.
    requests: what arrived, in order.
    """

    def __init__(self, *, pace: float = 0.0) -> None:
        self.pace = pace
        self.requests: list[Request] = []
        self._wires: tuple[Wire, ...] = (OpenAIWire(), AnthropicWire(), ScavioWire(), _Geocoder())
        self._seen: Counter[tuple[str, bytes]] = Counter()
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.hang_up()
        self._server.server_close()

    def answer(self, request: Request) -> Reply:
        """The answer to a request, faults included that concern its status."""
        self.requests.append(request)
        wire = next((wire for wire in self._wires if wire.serves(request)), None)
        if wire is None:
            return Reply({"error": {"message": f"nothing is at {request.path}"}}, 404)
        provoked = request.provoked
        if provoked == "flaky":
            with self._lock:
                self._seen[request.path, request.content] += 1
                first = self._seen[request.path, request.content] % 2 == 1
            provoked = "429" if first else None
        if provoked and provoked.isdigit():
            status = int(provoked)
            after = {"retry-after": str(RETRY_AFTER_S)} if status == 429 or status >= 500 else {}
            return Reply(wire.error(status, f"provoked: {status}"), status, after)
        return wire.answer(request)


class _Geocoder:
    def serves(self, request: Request) -> bool:
        return request.path == "/geocode"

    def answer(self, request: Request) -> Reply:
        place = request.query.get("q")
        latitude, longitude = draw(place, "lat", -6000, 6000), draw(place, "lon", -18000, 18000)
        return Reply({"lat": latitude / 100, "lon": longitude / 100})

    def error(self, status: int, message: str) -> Json:
        return {"error": message, "status": status}


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # joined by server_close: nothing of a server outlives it
    request_queue_size = 128
    owner: ProviderServer

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()

    def process_request(self, request: object, client_address: object) -> None:
        with self._lock:
            self._connections.add(cast("socket.socket", request))
        super().process_request(request, client_address)  # type: ignore[arg-type]

    def shutdown_request(self, request: object) -> None:
        with self._lock:
            self._connections.discard(cast("socket.socket", request))
        super().shutdown_request(request)  # type: ignore[arg-type]

    def hang_up(self) -> None:
        """End the connections that clients keep alive."""
        with self._lock:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # the client was faster


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two packets: without this, 40 ms a call

    def do_POST(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def handle(self) -> None:
        with suppress(ConnectionError):  # a client that is gone, or has broken off a stream
            super().handle()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""

    @property
    def _owner(self) -> ProviderServer:
        return cast("_Server", self.server).owner

    def _serve(self) -> None:
        owner = self._owner
        url = urlsplit(self.path)
        content = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        query = dict(parse_qsl(url.query))
        request = Request(self.command, url.path, query, headers, content)
        reply = owner.answer(request)
        time.sleep(owner.pace)
        self._send(request, reply)

    def _send(self, request: Request, reply: Reply) -> None:
        cut = request.provoked == "cut"
        if request.provoked == "html":
            self._send_content(b"<html><body>Under maintenance</body></html>", "text/html", {}, 200)
        elif reply.events is not None:
            self._send_events(reply.events, reply.headers, cut=cut)
        else:
            content = json.dumps(reply.body).encode()
            kind = "application/json"
            self._send_content(content, kind, reply.headers, reply.status, cut=cut)

    def _send_content(
        self,
        content: bytes,
        kind: str,
        headers: Mapping[str, str],
        status: int,
        *,
        cut: bool = False,
    ) -> None:
        self._head(status, {**headers, "content-type": kind, "content-length": str(len(content))})
        self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = self.close_connection or cut

    def _send_events(self, events: Iterable[str], headers: Mapping[str, str], *, cut: bool) -> None:
        kind = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
        self._head(200, {**headers, **kind})
        for number, event in enumerate(events):
            if cut and number == _EVENTS_BEFORE_CUT:
                self.close_connection = True
                return
            data = event.encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            time.sleep(self._owner.pace / 5)
        self.wfile.write(b"0\r\n\r\n")

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
