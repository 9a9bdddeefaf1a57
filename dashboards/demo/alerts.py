"""Prints what Alertmanager sends to a webhook, one line an alert.

python alerts.py [HOST:PORT]
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

HERE: Final = "127.0.0.1:9095"  # where ../alertmanager/webhook.yml sends to


class Alerts(BaseHTTPRequestHandler):
    """Takes Alertmanager's messages."""

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for alert in message["alerts"]:
            print(line(alert), flush=True)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing of requests."""


def line(alert: dict[str, dict[str, str]]) -> str:
    """HARD: tenant:acme is at its hard tier ...   over: ..."""
    labels, said = alert["labels"], alert["annotations"]
    if alert["status"] == "resolved":
        return f"over: {said['summary']}"
    grade = labels.get("tier") or labels["severity"]
    return f"{grade.upper()}: {said['summary']}. {said['description']}"


def server(address: str = HERE) -> ThreadingHTTPServer:
    """The receiver, bound and not yet serving."""
    host, _, port = address.rpartition(":")
    return ThreadingHTTPServer((host, int(port)), Alerts)


if __name__ == "__main__":
    with server(*sys.argv[1:]) as receiver:
        receiver.serve_forever()
