"""Work in a second thread, such as the writing of files while the next batch is sampled."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self


class Background:
    """Runs calls in a second thread, one after the other, as they were given.

    with Background() as background:
        background.do(write, path, data)

    The block ends when all are done. An error of a call is raised by the next `do` that sees it, at
    the latest at the end of the block, unless another error leaves that.
    """

    def __init__(self, waiting: int = 2):
        """waiting: calls that are not done yet, at most; `do` waits for its turn."""
        self.waiting = waiting
        self.calls: deque[Future] = deque()
        self.thread = ThreadPoolExecutor(1)

    def do(self, function: Callable[..., object], *arguments: Any) -> None:
        """Calls the function some time later."""
        while self.calls and (self.calls[0].done() or len(self.calls) >= self.waiting):
            self.calls.popleft().result()
        self.calls.append(self.thread.submit(function, *arguments))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.thread.shutdown(wait=True)
        if error is None:
            for call in self.calls:
                call.result()
