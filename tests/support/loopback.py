"""A loopback HTTP server that answers what a test scripts, and keeps what arrived."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self


class Arrived(NamedTuple):
    """A request as it arrived on the wire."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


Answer = tuple[int, Any]  # status and body: JSON, or bytes for something else


class Loopback:
    """`with Loopback(answer) as server: server.url`; `answer` maps what arrived to status and body."""

    def __init__(self, answer: Callable[[Arrived], Answer]) -> None:
        self.requests: list[Arrived] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                sent = self.rfile.read(int(self.headers.get("content-length") or 0))
                body = json.loads(sent) if sent[:1] in (b"{", b"[") else sent
                headers = {name.lower(): value for name, value in self.headers.items()}
                arrived = Arrived(self.command, self.path, headers, body)
                outer.requests.append(arrived)
                status, said = answer(arrived)
                content = said if isinstance(said, bytes) else json.dumps(said).encode()
                self.send_response(status)
                self.send_header(
                    "content-type", "text/html" if isinstance(said, bytes) else "application/json"
                )
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - the base class's names

            def log_message(self, *_: object) -> None:
                return None

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

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
        self._server.server_close()
        self._thread.join()
