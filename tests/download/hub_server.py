"""A hub on loopback: one model, with the few answers that huggingface_hub asks for, and a transfer
that breaks off.
"""

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + 34 * "0"


class Repo:
    """What the hub has of o/sd; files above 100 bytes are LFS files. requests: (method, path,
    Range) in order.
    """

    def __init__(self, files: dict[str, bytes]):
        self.url, self.files, self.requests = "", dict(files), []
        self.break_after: dict[
            str, int
        ] = {}  # file -> bytes after which the connection is cut, once
        self.sends: dict[str, bytes] = {}  # file -> what comes instead of its content

    def tree(self) -> list[dict]:
        """The listing of all files, with the git hash of each and the sha256 of an LFS file."""
        found = []
        for path, content in self.files.items():
            entry = {
                "type": "file",
                "path": path,
                "size": len(content),
                "oid": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
            }
            if len(content) > 100:
                entry["lfs"] = {
                    "oid": hashlib.sha256(content).hexdigest(),
                    "size": len(content),
                    "pointerSize": 130,
                }
            found.append(entry)
        return found


def handler_of(repo: Repo) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            path = unquote(urlsplit(self.path).path)
            repo.requests.append((self.command, path, self.headers.get("Range")))
            if re.fullmatch(r"/api/models/o/sd(/revision/main)?", path):
                self.answer_json(
                    {
                        "id": "o/sd",
                        "sha": COMMIT,
                        "siblings": [{"rfilename": name} for name in repo.files],
                    }
                )
            elif re.fullmatch(rf"/api/models/o/sd/tree/(main|{COMMIT})", path):
                self.answer_json(repo.tree())
            elif (match := re.fullmatch(rf"/o/sd/resolve/(?:main|{COMMIT})/(.+)", path)) and match[
                1
            ] in repo.files:
                self.send_content(match[1])
            else:
                self.answer(
                    404,
                    {
                        "X-Error-Code": "RepoNotFound"
                        if path.startswith("/api")
                        else "EntryNotFound"
                    },
                    b"",
                )

        do_HEAD = do_GET

        def send_content(self, name):
            content = repo.sends.get(name, repo.files[name])
            start = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
            headers = {
                "X-Repo-Commit": COMMIT,
                "ETag": f'"{hashlib.sha256(repo.files[name]).hexdigest()}"',
                "Accept-Ranges": "bytes",
            }
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.answer(
                206 if start else 200,
                headers,
                content[start:],
                cut=repo.break_after.pop(name, None) if self.command == "GET" else None,
            )

        def answer_json(self, value):
            self.answer(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

        def answer(self, status, headers, body, cut=None):
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body[:cut])
            if cut is not None:
                self.close_connection = True

        def log_message(self, *args):
            pass

    return Handler


@contextmanager
def serving(files: dict[str, bytes]):
    """A Repo behind a running server."""
    repo = Repo(files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(repo))
    server.daemon_threads = True
    repo.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    )
    thread.start()
    try:
        yield repo
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
