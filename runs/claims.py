"""Who does what, in a folder that several processes and machines share.

A claim is a numbered file that is made exclusively: of all that try, one wins, also on NFS (file
locks are not reliable there). Its holder touches it now and then. Whoever finds a holder dead makes
the next number, so that of several that find it one wins again.

What is concluded of a holder, in `State.is_dead`:
- on this machine: its process is gone;
- of a Slurm job of the same user: the queue does not list it;
- else: it was not heard of for SILENT seconds, by the clock of the file system, since the clocks of
  two machines differ.

A holder that was taken for dead and goes on (a machine that slept) does work twice. That costs time
and no result: files are replaced whole, and both write the same.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Self

from memorization_suite.runs import slurm
from memorization_suite.runs.environment import now
from memorization_suite.runs.files import write_json
from memorization_suite.runs.lazy import psutil

BEAT = 30.0  # seconds between two touches
SILENT = 600.0  # seconds without one, after which a holder is dead
FOLDER = ".claims"  # of the claims that are held for a moment
ASKED = 5.0  # seconds that an answer of the queue is good for
PATIENCE = 5.0  # seconds of waiting after which it is said
NAME = re.compile(r"(.+)\.(\d+)(\.over)?")


@dataclass(frozen=True)
class Holder:
    """A process that holds a claim."""

    host: str
    # What tells machines, and containers on one, apart.
    machine: str
    pid: int
    # When the process began: ids are used again.
    born: float
    # Its Slurm job, and how often that began before; empty and 0 outside of one.
    job: str = ""
    restarts: int = 0
    # Whose job: a queue is asked for one's own.
    user: str = ""

    @classmethod
    def me(cls) -> Holder:
        """This process."""
        return cls(
            host=socket.gethostname(),
            machine=this_machine(),
            pid=os.getpid(),
            born=psutil.Process().create_time(),
            job=slurm.my_job(),
            restarts=slurm.my_restarts(),
            user=getpass.getuser(),
        )

    def __str__(self) -> str:
        if self.job:
            return f"job {self.job} on {self.host}"
        return f"process {self.pid} on {self.host}"

    def is_gone(self) -> bool:
        """Whether it has ended, as far as can be known without waiting."""
        if self.machine == this_machine():
            return not is_running(self.pid, self.born)
        if not self.job or self.user != getpass.getuser():
            return False
        if self.job == slurm.my_job():
            return self.restarts < slurm.my_restarts()
        # An older answer does not know of a job that has begun since.
        return lacks(queue_at(int(time.monotonic() / ASKED)), self.job) and lacks(
            slurm.queued_jobs(), self.job
        )


def lacks(queue: dict[str, str] | None, job: str) -> bool:
    """Whether the queue, if it answered, has no such job that began: one that waits was put back,
    and its process has ended.
    """
    return queue is not None and queue.get(job, "PENDING") == "PENDING"


@lru_cache(maxsize=1)
def queue_at(moment: int) -> dict[str, str] | None:
    """`slurm.queued_jobs`, asked once for all claims that are looked at together."""
    return slurm.queued_jobs()


@cache
def this_machine() -> str:
    """The machine since it was booted, and the namespace of its process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux
        return f"{socket.gethostname()} {psutil.boot_time():.0f}"


def is_running(pid: int, born: float) -> bool:
    """Whether the process that began then is still there."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - born) < 1
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


@dataclass(frozen=True)
class State:
    """What is known of the last claim of a name."""

    number: int
    # None: its file is being written.
    holder: Holder | None
    # UTC, as in manifests; empty when its file is being written.
    since: str
    # What the holder said of its work.
    about: dict[str, Any]
    # Seconds since it was heard of.
    silent: float
    # How it ended; None: it did not.
    over: dict[str, Any] | None

    @property
    def is_dead(self) -> bool:
        """Whether it did not end, and nobody holds it any more."""
        if self.over is not None:
            return False
        return self.silent > SILENT or (self.holder is not None and self.holder.is_gone())

    @property
    def is_held(self) -> bool:
        """Whether somebody is at work."""
        return self.over is None and not self.is_dead


class Claims:
    """The claims that lie in a folder, which is made when one is taken."""

    def __init__(self, folder: Path):
        self.folder = folder

    def take(self, name: str, **about: Any) -> Claim | None:
        """The claim, or None while somebody holds it. about: for those who look, as JSON.

        Raises OSError.
        """
        states = self.history(name)
        if any(state.is_held for state in states):
            return None
        number = states[-1].number + 1 if states else 1
        claim = Claim(self, name, number, {"since": now(), **about})
        if not claim.make():
            return None
        # Where claims are released, numbers begin anew, so that two may have been made at once.
        others = [state for state in self.history(name) if state.number != number]
        if any(state.is_held for state in others):
            claim.release()
            return None
        return claim

    def look(self, name: str) -> State | None:
        """The last claim of a name; None when nobody took it."""
        states = self.history(name)
        return states[-1] if states else None

    def history(self, name: str) -> list[State]:
        """All claims of a name that are there, in order."""
        return self.every(name).get(name, [])

    def every(self, only: str | None = None) -> dict[str, list[State]]:
        """All claims by name, in order, from one listing. only: those of this name."""
        try:
            present = set(os.listdir(self.folder))
        except FileNotFoundError:
            return {}
        clock = None
        found: dict[str, list[State]] = {}
        for file in sorted(present):
            match = NAME.fullmatch(file)
            if not match or match[3] or only not in (None, match[1]):
                continue
            ended = f"{file}.over" in present
            if not ended and clock is None:
                clock = self.clock()
            state = self.read(int(match[2]), self.folder / file, ended, clock or 0.0)
            if state:
                found.setdefault(match[1], []).append(state)
        return {name: sorted(states, key=number_of) for name, states in found.items()}

    def read(self, number: int, file: Path, ended: bool, clock: float) -> State | None:
        """What a claim's file says; None when it was released meanwhile."""
        try:
            silent = clock - file.stat().st_mtime
            text = file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        about = parsed(text)
        over = parsed(read_or_nothing(file.with_name(f"{file.name}.over"))) if ended else None
        holder = about.pop("holder", None)
        return State(
            number,
            holder=Holder(**holder) if holder else None,
            since=about.pop("since", ""),
            about=about,
            silent=max(0.0, silent),
            over=over,
        )

    def clock(self) -> float:
        """The time of the file system, in seconds; where nothing can be written, this machine's."""
        probe = self.folder / f".clock.{socket.gethostname()}.{os.getpid()}.part"
        try:
            probe.touch()
            os.utime(probe)
            return probe.stat().st_mtime
        except OSError:
            return time.time()
        finally:
            with suppress(OSError):
                probe.unlink()

    def tidy(self) -> None:
        """Removes the folder if nothing lies in it."""
        with suppress(OSError):
            self.folder.rmdir()


def number_of(state: State) -> int:
    """What claims of a name are ordered by."""
    return state.number


def parsed(text: str) -> dict[str, Any]:
    """A claim's content; nothing while it is being written."""
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError):
        return {}


def read_or_nothing(file: Path) -> str:
    """A file's text; empty when it is gone."""
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


@dataclass
class Claim:
    """A claim that this process holds. It beats until it is ended or released.

    with claim: ... releases it, unless it was ended.
    """

    claims: Claims
    name: str
    number: int
    about: dict[str, Any]
    stopped: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def path(self) -> Path:
        """Its file."""
        return self.claims.folder / f"{self.name}.{self.number}"

    def make(self) -> bool:
        """Whether its file could be made: nobody else did. Raises OSError."""
        text = json.dumps({"holder": asdict(Holder.me()), **self.about}, ensure_ascii=False)
        try:
            handle = self.open_new()
        except FileExistsError:
            return False
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        threading.Thread(target=self.beat, daemon=True).start()
        return True

    def open_new(self) -> int:
        """A handle of the new file. Raises FileExistsError."""
        while True:
            self.claims.folder.mkdir(parents=True, exist_ok=True)
            try:
                return os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            except FileNotFoundError:  # somebody tidied the folder away meanwhile
                continue

    def beat(self) -> None:
        """Touches the file until the claim is over, or taken away."""
        while not self.stopped.wait(BEAT):
            try:
                os.utime(self.path)
            except FileNotFoundError:
                return
            except OSError:  # a disk that does not answer for a while
                continue

    def is_mine(self) -> bool:
        """Whether nobody took it for dead and made the next one."""
        last = self.claims.look(self.name)
        return last is not None and last.number == self.number

    def end(self, **facts: Any) -> None:
        """Notes how it ended, for those who look. Raises OSError."""
        self.stopped.set()
        write_json(self.path.with_name(f"{self.path.name}.over"), {"ended": now(), **facts})

    def release(self) -> None:
        """Removes it without a trace, and those of the dead before it. What ended stays."""
        self.stopped.set()
        for number in range(1, self.number + 1):
            file = self.claims.folder / f"{self.name}.{number}"
            if not file.with_name(f"{file.name}.over").exists():
                file.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if not self.stopped.is_set():
            self.release()


@contextmanager
def alone(folder: Path, name: str) -> Iterator[None]:
    """Nobody else is in a block of the same folder and name. It is for moments.

    One waits for one's turn, and says so when it takes long. Raises OSError.
    """
    claims = Claims(folder / FOLDER)
    try:
        with turn(claims, name):
            yield
    finally:
        claims.tidy()


def turn(claims: Claims, name: str) -> Claim:
    """The claim, when its holder has released it. Raises OSError."""
    start = time.monotonic()
    pause = 0.01
    said = False
    while True:
        claim = claims.take(name)
        if claim:
            return claim
        if not said and time.monotonic() - start > PATIENCE:
            said = True
            say_waiting(claims, name)
        time.sleep(pause)
        pause = min(1.0, pause * 1.5)


def say_waiting(claims: Claims, name: str) -> None:
    """Says on stderr for whom one waits."""
    state = claims.look(name)
    holder = state.holder if state else None
    print(
        f"waiting for {holder or 'another process'}, which writes in {claims.folder.parent}; "
        f"it is taken for dead {SILENT / 60:.0f} minutes after it was last heard of",
        file=sys.stderr,
        flush=True,
    )
