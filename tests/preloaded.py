"""A Python that has the heavy libraries loaded, so that many commands in a row start at once.

The server imports libraries of others, nothing of the suite. For each `python SCRIPT.py ...` it
forks, and the child runs the script with the client's arguments, folder, environment and files.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

LIBRARIES = {  # module -> names that load what is lazy in it
    "torch": (),
    "torchvision.transforms": (),
    "diffusers": ("StableDiffusionPipeline", "EulerDiscreteScheduler"),
    "transformers": ("CLIPTextModel", "CLIPTokenizer", "BertTokenizer"),
    "accelerate": (),
    "matplotlib.pyplot": (),
    "scipy.linalg": (),
    "open_clip": (),
    "lpips": (),
    "jinja2": (),
}
PROGRAM = """#!/bin/sh
case "$1" in *.py) exec "{python}" -I -S "{server}" "{socket}" "$@";; esac
exec "{python}" "$@"
"""
REQUEST = 1 << 20  # bytes; the environment is in it
PASSED_ON = (signal.SIGTERM, signal.SIGUSR2)  # from the client to the script


@contextmanager
def preloaded(environment: Mapping[str, str]) -> Iterator[Path]:
    """A program that takes the place of `python`, as long as the block lasts.

    environment: what the libraries see when they are imported. Where a process with so much in it
    cannot be forked safely, it is this interpreter.
    """
    if sys.platform != "linux":
        yield Path(sys.executable)
        return
    with tempfile.TemporaryDirectory(prefix="python_") as folder:
        address = Path(folder, "socket")
        server = subprocess.Popen(
            [sys.executable, __file__, "--serve", address],
            env=dict(environment),
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            assert server.stdout
            server.stdout.readline()  # it is ready
            program = Path(folder, "python")
            text = PROGRAM.format(python=sys.executable, server=__file__, socket=address)
            program.write_text(text, encoding="utf-8")
            program.chmod(0o755)
            yield program
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


# --- the server ---


def serve(address: str) -> list[str]:
    """Listens until it is killed, or alone. Returns in a child, with the script's arguments."""
    for name, inner in LIBRARIES.items():
        with suppress(ImportError):
            module = importlib.import_module(name)
            for part in inner:
                getattr(module, part)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        print("ready", flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are not waited for
        parent = os.getppid()
        while os.getppid() == parent:
            if not select.select([listening], [], [], 1.0)[0]:
                continue
            connection, _ = listening.accept()
            with connection:
                if os.fork() == 0:
                    return attend(connection)
    sys.exit()


def attend(connection: socket.socket) -> list[str]:
    """In a child: waits for a grandchild that runs the script, and tells how it ended.

    Returns in the grandchild.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, files, _, _ = socket.recv_fds(connection, REQUEST, 3)
    runner = os.fork()
    if runner:
        code = wait_for(runner, connection)
        with suppress(OSError):  # the client is gone
            connection.sendall(str(code).encode())
        os._exit(0)
    connection.close()
    request = json.loads(message)
    for ours, theirs in enumerate(files):
        os.dup2(theirs, ours)
        os.close(theirs)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    return request["arguments"]


def wait_for(runner: int, connection: socket.socket) -> int:
    """The exit code of the runner, which gets its client's signals, and is killed when it is."""
    while True:
        ended, status = os.waitpid(runner, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if select.select([connection], [], [], 0.02)[0]:
            number = connection.recv(1)
            os.kill(runner, number[0] if number else signal.SIGKILL)


def run(arguments: list[str]) -> NoReturn:
    """Runs a script as Python itself would, and ends the process.

    It is ended without Python's tidying up, which takes seconds when so much is loaded.
    """
    path = Path(arguments[0]).absolute()
    places = [str(path.resolve().parent)]
    places += filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:1] = places
    sys.argv = arguments
    main = types.ModuleType("__main__")
    main.__file__ = str(path)
    sys.modules["__main__"] = main
    code = 0
    try:
        exec(compile(path.read_bytes(), path, "exec"), vars(main))
    except SystemExit as left:
        code = exit_code(left)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def exit_code(left: SystemExit) -> int:
    """What the process returns; a text is a message, and code 1."""
    if isinstance(left.code, str):
        print(left.code, file=sys.stderr)
        return 1
    return int(left.code or 0) & 0xFF


# --- the client ---


def ask(address: str, arguments: list[str]) -> int:
    """Has a script run by the server. Returns its exit code."""
    request = {
        "arguments": arguments,
        "folder": os.getcwd(),
        "environment": dict(os.environ),
    }
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        for number in PASSED_ON:
            signal.signal(number, lambda number, frame: connection.send(bytes([number])))
        socket.send_fds(connection, [json.dumps(request).encode()], [0, 1, 2])
        answer = connection.recv(16)
    return int(answer or b"1")


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        run(serve(sys.argv[2]))
    else:
        sys.exit(ask(sys.argv[1], sys.argv[2:]))
