"""Serves the first page and the reports on loopback: read only, no login, and no file but a report's page."""

import http.server
import re
from pathlib import Path
from typing import Any, final
from urllib.parse import unquote, urlsplit

import jinja2

from mnist_exp.console.terminal import on_page
from mnist_exp.disk.layout import SweepFolder
from mnist_exp.ui.mlflow import MLflow
from mnist_exp.ui.overview import SHOWN, Overview

HOST = "127.0.0.1"
NAMED = ("127.0.0.1", "localhost")
"""What a browser may call this machine. Another name leads here only by a site that has taken over its address."""
NAME = r"[^/\\\0.][^/\\\0]*"  # of a folder: no path, and neither hidden nor a parent
LARGEST = 2**26  # bytes of a report; it has some three million
REPORT = re.compile(rf"(?:sweeps|runs)/{NAME}/{NAME}/(?:data-{NAME}/)?{re.escape(SweepFolder.page)}")
OWN = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src 'unsafe-inline'"
POLICY = f"default-src 'none'; {OWN}"
# A report is one file, with its own policy in it, which is narrower.
POLICY_OF_REPORTS = f"{POLICY}; script-src 'unsafe-inline'; img-src data: blob:; font-src data:"


@final
class Server(http.server.ThreadingHTTPServer):
    """Listens on a *port* of loopback for a browser on this machine; 0: any that is free.

    Raises:
        OSError: the port is in use, or not for everybody.
    """

    daemon_threads = True

    def __init__(self, port: int, root: Path, mlflow: MLflow) -> None:
        self.overview, self.mlflow = Overview(root.absolute()), mlflow
        text = Path(__file__).with_name("index.html.j2").read_text(encoding="utf-8")
        pages = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, finalize=on_page)
        pages.trim_blocks = pages.lstrip_blocks = True
        self.template = pages.from_string(text)
        super().__init__((HOST, port), Handler)

    @property
    def address(self) -> str:
        """What a browser opens."""
        return f"http://{HOST}:{self.server_port}/"

    def index(self) -> str:
        """The first page."""
        sweeps, runs = map(self.overview.newest, ("sweeps", "runs"))
        mlflow, problem = self.mlflow.look()
        return self.template.render(
            folder=self.overview.root.parent, sweeps=sweeps, runs=runs, shown=SHOWN, mlflow=mlflow, problem=problem
        )

    def report(self, path: str) -> bytes | None:
        """The report at *path*, an address without its first slash; None if there is none."""
        root = self.overview.root.resolve()
        file = root / path
        if not REPORT.fullmatch(path) or not file.is_file() or file.resolve() != file:  # a link leads anywhere
            return None
        if file.stat().st_size > LARGEST:
            return None
        return file.read_bytes()


@final
class Handler(http.server.BaseHTTPRequestHandler):
    """Answers one request."""

    server: Server
    server_version, sys_version = "mnist_exp", ""
    timeout = 30  # seconds that a request may take to arrive

    def do_GET(self) -> None:
        """Answers with a page."""
        path = unquote(urlsplit(self.path).path, errors="surrogateescape").lstrip("/")
        if urlsplit(f"//{self.headers.get('Host', '')}").hostname not in NAMED:
            self._answer(403, b"This server answers to 127.0.0.1 and localhost only.", "text/plain", POLICY)
        elif not path:
            self._answer(200, self.server.index().encode(), "text/html", POLICY)
        elif (report := self.server.report(path)) is not None:
            self._answer(200, report, "text/html", POLICY_OF_REPORTS)
        else:
            self._answer(404, b"There is no such page.", "text/plain", POLICY)

    do_HEAD = do_GET

    def _answer(self, status: int, body: bytes, kind: str, policy: str) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(body)),
            "Content-Security-Policy": policy,
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *values: Any) -> None:
        """Says nothing: who looks at the terminal looks for other things."""
