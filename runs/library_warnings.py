"""What libraries warn of reaches the user: a plain line on stderr, once in a job.

Everything that diffusers, transformers, torch, PIL and the others warn of is let through, by
`warnings` or by `logging`, but for PASSED_OVER. Python's own rule holds for what is said to
programmers: DeprecationWarning and the like stay quiet.
"""

from __future__ import annotations

import functools
import logging
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from memorization_suite import ROOT
from memorization_suite.runs.notices import listening, say, without_numbers

P = ParamSpec("P")
R = TypeVar("R")

# Beginnings of what does not concern the user, each with the reason.
PASSED_OVER = (
    # diffusers; the commands say it with the captions' rows (`commands/captions.py`).
    "The following part of your input was truncated because CLIP",
    # transformers, when diffusers measures a caption; what the model gets is cut, and that is said.
    "Token indices sequence length is longer than the specified maximum",
    # torch; the published SSCD and Inception are TorchScript files.
    "`torch.jit.",
    # The hub; everything that is fetched is public.
    "You are sending unauthenticated requests to the HF Hub",
    # torchvision, to the package lpips, which builds an AlexNet that the suite then fills.
    "The parameter 'pretrained' is deprecated since",
    "Arguments other than a weight enum or `None` for 'weights' are deprecated",
    # The hub; that a folder cannot be fetched anew is said.
    "Returning existing local_dir",
    # diffusers, where a folder has no safetensors: it takes others, or says what it lacks.
    "An error occurred while trying to fetch",
    # The hub, to diffusers.
    "The `local_dir_use_symlinks` argument is deprecated",
    # Pillow, of a picture that is read: twice as large ones are refused (`decoding.decoded`).
    "Image size (",
    # matplotlib; a character of a caption that the font lacks is drawn as a box.
    "Glyph ",
)
# Categories that Python keeps quiet.
FOR_PROGRAMMERS = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
# Loggers that print by themselves, and hand nothing on to the root logger.
PROUD = ("diffusers", "transformers", "huggingface_hub", "torch")
# Characters of a line.
LONGEST = 1000
INSTALLED = ("site-packages", "dist-packages")
COLORS = re.compile(r"\x1b\[[0-9;]*m")
# A whole configuration in the middle of a sentence, which hides what is said of it.
DUMP = re.compile(r"\{[^{}]{100,}\}")
# Where in its own source torch found something.
TRIGGERED = re.compile(r"\(Triggered internally at .*\)\s*$", re.DOTALL)
# The file that is read.
READ: ContextVar[Path | str] = ContextVar("READ", default="")


@contextmanager
def heard(file: Path | None = None) -> Iterator[None]:
    """A job (`notices.listening`) in which the libraries are heard. Afterwards they speak as
    before.
    """
    with listening(file), HEARING:
        yield


def hearing(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: the function is a job in which the libraries are heard."""

    @functools.wraps(function)
    def job(*args: P.args, **kwargs: P.kwargs) -> R:
        with heard():
            return function(*args, **kwargs)

    return job


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """What is warned of in the block is of this file."""
    token = READ.set(path)
    try:
        yield
    finally:
        READ.reset(token)


def pass_on(library: str, text: str) -> None:
    """Says what a library warns of, unless it does not concern the user."""
    text = DUMP.sub("{...}", TRIGGERED.sub("", COLORS.sub("", text)))
    text = " ".join(text.split())
    if text.startswith(PASSED_OVER):
        return
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}... (and {len(text) - LONGEST} more characters)"
    line = f"{library}: {text}"
    path = READ.get()
    where = f" ({path})" if path and str(path) not in text else ""
    say(f"{line}{where}", alike=without_numbers(line))


def library_of(file: str) -> str:
    """Whose a source file is: `PIL`; a file of the suite by its path in it."""
    path = Path(file)
    for place in INSTALLED:
        if place in path.parts:
            inside = path.parts[len(path.parts) - path.parts[::-1].index(place) :]
            return Path(inside[0]).stem
    if path.is_relative_to(ROOT):
        return str(path.relative_to(ROOT))
    return path.stem


# --- by `warnings` and by `logging` ---


def show(message: Any, category: type, filename: str, *rest: Any) -> None:
    """In the place of `warnings.showwarning`."""
    told_by = category.__module__.partition(".")[0]
    library = library_of(filename) if told_by == "builtins" else told_by
    pass_on(library, str(message))


class Ear(logging.Handler):
    """Hears what libraries log as a warning or worse, and quiets their own handlers for that."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        # Handlers that are quiet meanwhile.
        self.others: list[logging.Handler] = []

    def emit(self, record: logging.LogRecord) -> None:
        name = record.name.partition(".")[0]
        if name in PROUD:
            # A library that was imported meanwhile has a handler now, which would be the next.
            self.quiet(logging.getLogger(name))
        library = library_of(record.pathname) if name in ("root", "py") else name
        pass_on(library, record.getMessage())

    def quiet(self, logger: logging.Logger) -> None:
        """No other handler of the logger prints warnings."""
        for handler in logger.handlers:
            if handler is not self and handler not in self.others:
                handler.addFilter(is_no_warning)
                self.others.append(handler)

    def attach(self) -> None:
        """Listens to all loggers."""
        for name in PROUD:
            self.quiet(logging.getLogger(name))
        for logger in self.loggers():
            logger.addHandler(self)

    def detach(self) -> None:
        """Ends that, and others print again."""
        for logger in self.loggers():
            logger.removeHandler(self)
        for handler in self.others:
            handler.removeFilter(is_no_warning)
        self.others.clear()

    def loggers(self) -> list[logging.Logger]:
        """The root logger, and those that hand nothing on to it."""
        return [logging.getLogger(), *map(logging.getLogger, PROUD)]


def is_no_warning(record: logging.LogRecord) -> bool:
    """A filter: what is less than a warning, which somebody asked for."""
    return record.levelno < logging.WARNING


class Hearing:
    """While blocks of it are open, in any thread, the libraries are heard."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.depth = 0
        self.ear = Ear()
        # What puts everything back.
        self.after = ExitStack()

    def __enter__(self) -> None:
        with self.lock:
            self.depth += 1
            if self.depth == 1:
                self.after.enter_context(warnings.catch_warnings())
                warnings.showwarning = show  # type: ignore[assignment]
                self.ear.attach()
                self.after.callback(self.ear.detach)

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.depth -= 1
            if self.depth == 0:
                self.after.close()


HEARING = Hearing()
