"""Who does what, in a folder that several processes and machines share.

A claim is a numbered file that is made exclusively: of all that try, one wins, also on NFS (file
locks are not reliable there). Its holder touches it now and then. The last number decides. Whoever
finds it ended, or its holder dead, makes the next number, so that of several one wins again. The
last file stays, so that numbers are not used twice, until all work in the folder is at its end.

Whether a holder lives is known of some (`runs/holders.py`). Another is dead when it was not heard
of for SILENT seconds, by the clock of the file system, since the clocks of two machines differ.

A machine that slept may wake and find its claim taken. It ends before it changes a table
(`Claim.check`). Images are files that are replaced whole, and both write the same.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

from memorization_suite.runs.environment import now
from memorization_suite.runs.files import write_json
from memorization_suite.runs.holders import Holder, my_user
from memorization_suite.runs.parse import json_of
from memorization_suite.runs.parts import part_of
from memorization_suite.runs.processes import this_machine

BEAT = 30.0  # seconds between two touches
SILENT = 600.0  # seconds without one, after which a holder is dead
UNWRITTEN = 120.0  # the same of one that was killed before it wrote its file
FOLDER = ".claims_{}"  # of claims that are held for a moment, by their name
PATIENCE = 5.0  # seconds of waiting after which it is said
NAME = re.compile(r"(.+)\.(\d+)(\.over)?")


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
    # When it was read, by time.monotonic.
    seen: float
    # How it ended; None: it did not.
    over: dict[str, Any] | None

    @property
    def is_dead(self) -> bool:
        """Whether it did not end, and nobody holds it any more."""
        if self.over is not None:
            return False
        lives = self.holder.lives(self.seen) if self.holder else None
        return self.silent > self.patience if lives is None else not lives

    @property
    def patience(self) -> float:
        """Seconds of silence after which it is dead, where nothing else tells."""
        return SILENT if self.holder else UNWRITTEN

    @property
    def is_held(self) -> bool:
        """Whether somebody is at work."""
        return self.over is None and not self.is_dead

    @property
    def is_near(self) -> bool:
        """Whether its process is one of this machine and user, which alone decides."""
        holder = self.holder
        return holder is not None and holder.machine == this_machine() and holder.user == my_user()

    @property
    def until(self) -> str:
        """What ends the waiting for it, for people."""
        if self.is_near and self.holder:
            return f"this ends when process {self.holder.pid} ends (kill {self.holder.pid})"
        return f"it is taken for dead {self.patience / 60:.0f} minutes after it was last heard of"


class ClaimFile(NamedTuple):
    """A claim's file, as a listing shows it."""

    number: int
    name: str
    # Whether there is one beside it that says how the claim ended.
    ended: bool


class Claims:
    """The claims that lie in a folder, which is made when one is taken."""

    def __init__(self, folder: Path):
        self.folder = folder

    def take(self, name: str, **about: Any) -> Claim | None:
        """The claim, or None while somebody holds it. about: for those who look, as JSON.

        Raises OSError.
        """
        last = self.look(name)
        if last is not None and last.is_held:
            return None
        claim = Claim(self, name, 1 + (last.number if last else 0), {"since": now(), **about})
        if not claim.make():
            return None
        # The folder was removed since that look, and another process was faster to begin anew.
        if not claim.is_mine() or self.is_held_before(claim):
            claim.withdraw()
            return None
        return claim

    def is_held_before(self, claim: Claim) -> bool:
        """Whether somebody holds a lower number of its name."""
        return any(
            state.is_held for state in self.history(claim.name) if state.number < claim.number
        )

    def look(self, name: str) -> State | None:
        """The last claim of a name; None when nobody took it."""
        return self.latest(name).get(name)

    def latest(self, only: str | None = None) -> dict[str, State]:
        """The last claim of each name, from one listing. only: that of this name."""
        found = {}
        for name, files in self.listed(only).items():
            states = self.states(reversed(files))
            last = next(states, None)
            if last is not None:
                found[name] = last
        return found

    def history(self, name: str) -> list[State]:
        """All claims of a name that are there, in order."""
        return list(self.states(self.listed(name).get(name, [])))

    def listed(self, only: str | None = None) -> dict[str, list[ClaimFile]]:
        """The files of claims by name, in order. only: those of this name."""
        try:
            present = set(os.listdir(self.folder))
        except FileNotFoundError:
            return {}
        found: dict[str, list[ClaimFile]] = {}
        for file in present:
            match = NAME.fullmatch(file)
            if match and not match[3] and only in (None, match[1]):
                entry = ClaimFile(int(match[2]), file, ended=f"{file}.over" in present)
                found.setdefault(match[1], []).append(entry)
        return {name: sorted(files) for name, files in found.items()}

    def states(self, files: Iterable[ClaimFile]) -> Iterator[State]:
        """What these files say, but of those that are gone; the clock is asked for once."""
        clock = 0.0
        for file in files:
            if not file.ended and not clock:
                clock = clock_of(self.folder)
            state = self.read(file.number, self.folder / file.name, file.ended, clock)
            if state:
                yield state

    def read(self, number: int, file: Path, ended: bool, clock: float) -> State | None:
        """What a claim's file says; None when it was released meanwhile."""
        try:
            silent = clock - file.stat().st_mtime
            text = file.read_text(encoding="utf-8", errors="replace")
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
            seen=time.monotonic(),
            over=over,
        )

    def remove(self) -> bool:
        """Removes the folder at once, as all who look see it, at the end of all work. Returns
        whether it could be.
        """
        gone = part_of(self.folder)
        with suppress(OSError):
            os.replace(self.folder, gone)
            shutil.rmtree(gone, ignore_errors=True)
            return True
        return False


def clock_of(folder: Path) -> float:
    """The time of the file system, in seconds; where nothing can be written, this machine's.

    The new file makes a client of NFS look at the folder again.
    """
    probe = part_of(folder / f"clock.{threading.get_ident()}")
    try:
        probe.touch()
        os.utime(probe)
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with suppress(OSError):
            probe.unlink()


def parsed(text: str) -> dict[str, Any]:
    """A claim's content; nothing while it is being written."""
    try:
        return dict(json_of(text))
    except (ValueError, TypeError):
        return {}


def read_or_nothing(file: Path) -> str:
    """A file's text; empty when it is gone."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


class TakenAway(OSError):
    """Another process took a claim, since its holder was not heard of."""


@dataclass
class Claim:
    """A claim that this process holds. It beats until it is ended.

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
        return self.file(self.number)

    def file(self, number: int) -> Path:
        """The file of a number of its name."""
        return self.claims.folder / f"{self.name}.{number}"

    def make(self) -> bool:
        """Whether its file could be made: nobody else did. Raises OSError."""
        text = json.dumps({"holder": asdict(Holder.me()), **self.about}, ensure_ascii=False)
        try:
            handle = self.open_new()
        except FileExistsError:
            return False
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
        except BaseException as error:
            self.withdraw()
            if isinstance(error, OSError) and error.errno:  # a full disk
                raise OSError(error.errno, error.strerror, str(self.path)) from error
            raise
        threading.Thread(target=self.beat, daemon=True).start()
        return True

    def open_new(self) -> int:
        """A handle of the new file. Raises FileExistsError."""
        while True:
            self.claims.folder.mkdir(parents=True, exist_ok=True)
            # Another process may have removed the folder since.
            with suppress(FileNotFoundError):
                return os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)

    def beat(self) -> None:
        """Touches the file until the claim is over, or taken away."""
        while not self.stopped.wait(BEAT):
            try:
                if not self.is_mine():
                    return
                os.utime(self.path)
            except OSError:  # a disk that does not answer for a while
                continue

    def is_mine(self) -> bool:
        """Whether nobody took it for dead and made the next one."""
        files = self.claims.listed(self.name).get(self.name, [])
        return bool(files) and files[-1].number == self.number

    def check(self) -> None:
        """Raises TakenAway when another process holds it now."""
        if not self.is_mine():
            raise TakenAway(
                f"another process took over {self.claims.folder.parent}, for which this one was "
                "dead: give the command again"
            )

    def end(self, **facts: Any) -> None:
        """Notes how it ended, for those who look. Raises OSError."""
        write_json(self.path.with_name(f"{self.path.name}.over"), {"ended": now(), **facts})
        self.stopped.set()

    def release(self) -> None:
        """Ends it, and removes those before it. Raises OSError."""
        self.end()
        number = self.number - 1
        while number and self.file(number).exists():
            self.file(number).unlink(missing_ok=True)
            self.file(number).with_name(f"{self.name}.{number}.over").unlink(missing_ok=True)
            number -= 1

    def withdraw(self) -> None:
        """Removes its file, which never counted, and a folder that is empty then."""
        self.stopped.set()
        with suppress(OSError):
            self.path.unlink()
            self.claims.folder.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self.stopped.is_set():
            return
        try:
            self.release()
        except OSError:  # a full disk: nobody shall wait for this process
            self.withdraw()
            if error is None:
                raise


@contextmanager
def alone(folder: Path, name: str, *, closing: bool = False) -> Iterator[Claim]:
    """Nobody else is in a block of the same folder and name. It is for moments, and checks its
    claim before it replaces what others may have replaced.

    One waits for one's turn, and says so when it takes long. closing: it is the last of some work,
    and leaves no trace. Raises OSError.
    """
    claims = Claims(folder / FOLDER.format(name))
    with turn(claims, name) as claim:
        yield claim
        if closing and claim.is_mine() and claims.remove():
            claim.stopped.set()


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
    """Says on stderr for whom one waits, if it still is so."""
    state = claims.look(name)
    if state is not None:
        print(
            f"waiting for {state.holder or 'another process'}, which writes in "
            f"{claims.folder.parent}; {state.until}",
            file=sys.stderr,
            flush=True,
        )
