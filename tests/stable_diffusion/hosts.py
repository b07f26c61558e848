"""The hub and the other hosts of download/assets.toml on loopback, serving files of a folder.

<folder>/hub/<owner>/<name>/<file>      the hub's repositories, at any revision
<folder>/web/<host>/<path>              what http://127.0.0.1:PORT/<host>/<path> gives
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copyfileobj
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + 34 * "0"
KINDS = "(?:models|datasets)"
ABOUT = re.compile(rf"/api/{KINDS}/([\w.-]+/[\w.-]+)(?:/revision/[\w.-]+)?")
TREE = re.compile(rf"/api/{KINDS}/([\w.-]+/[\w.-]+)/tree/[\w.-]+/?(.*)")
CONTENT = re.compile(r"(?:/datasets)?/([\w.-]+/[\w.-]+)/resolve/[\w.-]+/(.+)")
SMALL = 100  # bytes; larger files are LFS files


@cache
def hashes(path: Path) -> tuple[str, str]:
    """(git's hash, sha256) of a file, which stays as it is."""
    content = path.read_bytes()
    git = hashlib.sha1(b"blob %d\0" % len(content) + content)
    return git.hexdigest(), hashlib.sha256(content).hexdigest()


def listed(repository: Path, below: str = "", *, inner: bool = True) -> list[dict]:
    """The hub's listing of a folder in a repository. inner: with what lies in its folders."""
    folder = repository / below
    entries = []
    for path in sorted(folder.rglob("*") if inner else folder.glob("*")):
        name = path.relative_to(repository).as_posix()
        entry: dict = {"type": "directory", "path": name, "size": 0, "oid": 40 * "0"}
        if path.is_file():
            git, sha256 = hashes(path)
            size = path.stat().st_size
            entry |= {"type": "file", "size": size, "oid": git}
            if size > SMALL:
                entry["lfs"] = {"oid": sha256, "size": size, "pointerSize": 130}
        entries.append(entry)
    return entries


def about(repository: Path) -> dict:
    """What the hub says of a repository."""
    files = [entry["path"] for entry in listed(repository) if entry["type"] == "file"]
    return {
        "id": "/".join(repository.parts[-2:]),
        "sha": COMMIT,
        "siblings": [{"rfilename": name} for name in files],
    }


def handler_of(folder: Path, asked: list[str]) -> type[BaseHTTPRequestHandler]:
    """Answers from the folder. asked: takes the path of every request."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            address = urlsplit(self.path)
            path = unquote(address.path)
            asked.append(path)
            hub = folder / "hub"
            if (found := ABOUT.fullmatch(path)) and (hub / found[1]).is_dir():
                self.send_json(about(hub / found[1]))
            elif (found := TREE.fullmatch(path)) and (hub / found[1] / found[2]).is_dir():
                inner = "recursive=true" in address.query.lower()
                self.send_json(listed(hub / found[1], found[2], inner=inner))
            elif found := CONTENT.fullmatch(path):
                self.send_content(hub / found[1] / found[2])
            elif path.startswith("/api/"):
                self.begin(404, {"X-Error-Code": "RepoNotFound"}, 0)
            else:
                self.send_content(folder / "web" / path.lstrip("/"))

        do_HEAD = do_GET

        def send_json(self, value):
            content = json.dumps(value).encode()
            self.begin(200, {"Content-Type": "application/json"}, len(content))
            if self.command == "GET":
                self.wfile.write(content)

        def send_content(self, path: Path):
            if not path.is_file():
                self.begin(404, {"X-Error-Code": "EntryNotFound"}, 0)
                return
            headers = {"ETag": f'"{hashes(path)[1]}"', "X-Repo-Commit": COMMIT}
            self.begin(200, headers, path.stat().st_size)
            if self.command == "GET":
                with open(path, "rb") as file:
                    copyfileobj(file, self.wfile)

        def begin(self, status: int, headers: dict[str, str], length: int):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(length))
            self.end_headers()

        def log_message(self, *args):
            pass

    return Handler


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """(address of a running server, paths that it was asked for)."""
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(folder, asked))
    server.daemon_threads = True
    options = {"poll_interval": 0.01}
    thread = threading.Thread(target=server.serve_forever, kwargs=options, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
