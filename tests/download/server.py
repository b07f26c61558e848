"""A file server on loopback with ranges and faults."""

import hashlib
import re
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Shelf:
    """What the server has, how it misbehaves, what it was asked for, and how many bytes it
    announced each time.
    """

    def __init__(self):
        self.url, self.files, self.requests, self.sent = "", {}, [], []
        self.break_after: dict[
            str, int
        ] = {}  # path -> bytes after which the connection is cut, once
        self.moved: dict[str, str] = {}  # path -> path it redirects to
        self.headers: dict[str, dict[str, str]] = {}  # path -> more headers of its answer
        self.endless: set[str] = set()  # paths whose answer never ends, and tells no size
        self.faults: dict[str, list[int]] = {}  # path -> codes of the next answers
        self.content_type, self.etags = "application/octet-stream", True

    def put(self, path: str, content: bytes) -> str:
        """Its url."""
        self.files[path] = content
        return f"{self.url}/{path}"

    @property
    def ranges(self) -> list[str | None]:
        return [asked for _, asked in self.requests]


def handler_of(shelf: Shelf) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path = self.path.lstrip("/")
            shelf.requests.append((path, self.headers.get("Range")))
            if shelf.faults.get(path):
                self.send_error(shelf.faults[path].pop(0))
            elif path in shelf.moved:
                self.answer(302, {"Location": "/" + shelf.moved[path], "Content-Length": "0"}, b"")
            elif path not in shelf.files:
                self.send_error(404)
            else:
                self.send_file(path, shelf.files[path])

        def send_endless(self, content):
            self.send_response(200)
            self.send_header("Content-Type", shelf.content_type)
            self.end_headers()
            with suppress(OSError):  # until who asked has enough
                while True:
                    self.wfile.write(content)

        def send_file(self, path, content):
            if path in shelf.endless:
                return self.send_endless(content)
            etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            headers = (
                {"Content-Type": shelf.content_type}
                | ({"ETag": etag} if shelf.etags else {})
                | shelf.headers.get(path, {})
            )
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(asked[1]) if asked and self.headers.get("If-Range", etag) == etag else 0
            if start and start >= len(content):
                return self.answer(
                    416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"}, b""
                )
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            body = content[start:]
            shelf.sent.append(len(body))
            cut = shelf.break_after.pop(path, len(body))
            return self.answer(
                206 if start else 200, headers | {"Content-Length": str(len(body))}, body[:cut]
            )

        def answer(self, status, headers, body):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    return Handler


@contextmanager
def serving():
    """A Shelf behind a running server."""
    shelf = Shelf()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(shelf))
    shelf.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    )
    thread.start()
    try:
        yield shelf
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
