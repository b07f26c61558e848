"""What a command says of its work, on stderr: what it will do, how long it takes, what is kept when
it stops, and at the end what one would do next.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from memorization_suite import ROOT

RESUME = "Rerun the command to resume."
# Without a terminal: seconds between two lines, at least and at most; a tenth of what has passed.
LEAST_PAUSE = 30.0
LONGEST_PAUSE = 600.0


def next_step(command: Sequence[str | Path] | str, quiet: bool = False) -> None:
    """Says `next: COMMAND`, what one would do with the results.

    command: words, which are quoted for the shell, or a text as it is; of nothing nothing is said.
    A script of the suite is named so that it is found from where one stands. quiet: nothing is
    said.
    """
    if quiet or not command:
        return
    if not isinstance(command, str):
        command = shlex.join(map(from_here, command))
    print(f"next: {command}", file=sys.stderr, flush=True)


def from_here(word: str | Path) -> str:
    """A script of the suite, and a path below where one stands, as they are named from there.

    Another word is as it is.
    """
    path = Path(word)
    if path.suffix == ".py" and (ROOT / path).is_file():
        path = ROOT / path
    here = Path.cwd()
    if path.is_absolute():
        return str(path.relative_to(here) if here in path.parents else path)
    return str(word)


def to_open(file: Path) -> list[str]:
    """The command that shows a page or a picture in the browser."""
    return ["python", "-m", "webbrowser", file.resolve().as_uri()]


class Progress:
    """A bar on a terminal, else a line now and then; ahead what will be done, after the first batch
    how long the rest takes.

    with Progress("640 images of 64 prompts", 640, unit="image", place=folder) as progress:
        ...
        progress.update(10)

    An error that leaves the block carries a note with what is kept at the `place`.
    """

    def __init__(
        self,
        what: str,
        total: int,
        *,
        unit: str,
        there: int = 0,
        place: Path | None = None,
        then: str = RESUME,
        drawn: bool = True,
        quiet: bool = False,
    ):
        """what: for the line ahead. total, there: how many units there will be, and are already.

        place: where finished units are kept when the work stops. then: how one goes on. drawn:
        whether there is a bar on a terminal, not where parts of the work have theirs. quiet: no bar
        and no line.
        """
        self.what = what
        self.total = total
        self.unit = unit
        self.there = there
        self.place = place
        self.then = then
        self.drawn = drawn
        self.quiet = quiet
        # Units that are there now.
        self.done = there
        self.bar: Any = None

    def __enter__(self) -> Self:
        self.start = time.monotonic()
        self.spoken = self.start
        already = f"; {self.there} are there already" if self.there else ""
        self.say(f"{self.what}{already}")
        if self.drawn and not self.quiet and sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=self.total, initial=self.there, unit=self.unit)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self.bar is not None:
            self.bar.close()
        told = hasattr(error, "__notes__")  # it says itself what is kept
        if error is not None and self.place is not None and self.done and not told:
            kept = f"{self.done} of {self.total} {self.unit}s are kept in {self.place}."
            error.add_note(f"{kept} {self.then}")

    def update(self, count: int, **shown: Any) -> None:
        """So many units were made. shown: numbers that stand beside the bar."""
        is_first = self.done == self.there
        self.done += count
        if is_first and self.done < self.total:
            self.say(f"about {self.left()} ({each_text(self.pace(), self.unit)})")
            self.spoken = time.monotonic()
        if self.bar is not None:
            self.bar.set_postfix(**shown, refresh=False)
            self.bar.update(count)
        elif self.done < self.total and time.monotonic() - self.spoken > self.pause():
            self.say(f"{self.done} of {self.total} {self.unit}s, about {self.left()} left")
            self.spoken = time.monotonic()

    def pace(self) -> float:
        """Seconds a unit, so far."""
        return (time.monotonic() - self.start) / max(1, self.done - self.there)

    def left(self) -> str:
        """How long the rest takes."""
        return duration_text(self.pace() * (self.total - self.done))

    def pause(self) -> float:
        """Seconds between two lines: short at first, longer in a long run."""
        passed = time.monotonic() - self.start
        return min(LONGEST_PAUSE, max(LEAST_PAUSE, passed / 10))

    def say(self, line: str) -> None:
        """A line, above the bar if there is one."""
        if self.quiet:
            return
        if self.bar is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self.bar.write(line, file=sys.stderr)


def duration_text(seconds: float) -> str:
    """`45 s`, `4 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    whole = max(1, round(seconds))
    for unit, part, size, small in (("d", "h", 86400, 3600), ("h", "min", 3600, 60)):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {unit} {rest} {part}" if rest else f"{whole // size} {unit}"
    if whole >= 60:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole} s"


def each_text(seconds: float, unit: str) -> str:
    """`0.41 s an image`, `4 min 20 s a prompt`."""
    article = "an" if unit[0] in "aeiou" else "a"
    if seconds >= 60:
        return f"{duration_text(seconds)} {article} {unit}"
    return f"{seconds:.{2 if seconds < 1 else 1}f} s {article} {unit}"
