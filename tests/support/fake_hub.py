"""A Hugging Face hub on loopback that serves data set repositories from memory."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

RESOLVE = re.compile(
    r"/datasets/(?P<repository>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)"
)
API = re.compile(r"/api/datasets/(?P<repository>[^/]+/[^/]+)/(?P<what>revision|tree)/")


class FakeHub:
    """What a hub serves and what it was asked.

    Attributes:
        repositories: content of each file of each repository.
        gated: repositories that need a token.
        cuts: for a file name, how many answers break off half way.
        requests: method and file name of each request for a file.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.cuts: dict[str, int] = {}
        self.requests: list[tuple[str, str]] = []
        self.url = ""

    def clear(self) -> None:
        """Forget what is served and what was asked; go on serving."""
        for content in (self.repositories, self.gated, self.cuts, self.requests):
            content.clear()

    def revision(self, repository: str) -> str:
        """A hash that changes with the content, as a commit does."""
        digest = hashlib.sha1()
        for file, content in sorted(self.repositories[repository].items()):
            digest.update(file.encode() + content)
        return digest.hexdigest()

    @contextmanager
    def serve(self) -> "Iterator[FakeHub]":
        """Answer requests within the block."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        match = RESOLVE.fullmatch(path) or API.match(path)
        repository = match["repository"] if match else ""
        if repository in self.hub.gated:
            self._answer(403, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "no access"})
        elif repository not in self.hub.repositories:
            self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif match.re is RESOLVE:
            self._file(repository, match["file"])
        elif match["what"] == "tree":
            files = self.hub.repositories[repository]
            self._json(
                [
                    {"type": "file", "path": k, "size": len(v), "oid": hashlib.sha1(v).hexdigest()}
                    for k, v in files.items()
                ]
            )
        else:
            sha = self.hub.revision(repository)
            self._json({"id": repository, "sha": sha, "siblings": [], "tags": []})

    do_HEAD = do_GET

    def _file(self, repository: str, file: str) -> None:
        part = self.headers.get("Range")
        self.hub.requests.append((self.command, file))
        content = self.hub.repositories[repository][file]
        headers = {
            "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
            "X-Repo-Commit": self.hub.revision(repository),
            "Accept-Ranges": "bytes",
        }
        if part:
            start = int(part.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._answer(206, content[start:], headers, file)
        else:
            self._answer(200, content, headers, file)

    def _json(self, value: object) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, code: int, body: bytes, headers: dict[str, str], file: str = "") -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.cuts.get(file, 0):
            self.hub.cuts[file] -= 1
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        else:
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""
