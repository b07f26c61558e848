"""Gradient checkpointing: modules keep their inputs alone, and are computed again for gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar

from memorization_suite.runs.lazy import checkpointing, torch

Again = Callable[[], AbstractContextManager[None]]
RECOMPUTING = ContextVar("recomputing", default=False)


def is_recomputing() -> bool:
    """Whether what runs now has run before and is computed again for a gradient."""
    return RECOMPUTING.get()


@contextmanager
def recomputing(again: Again) -> Iterator[None]:
    """Inside the block everything is computed again, inside again()."""
    token = RECOMPUTING.set(True)
    try:
        with again():
            yield
    finally:
        RECOMPUTING.reset(token)


@contextmanager
def checkpointed(modules: Iterable[torch.nn.Module], again: Again) -> Iterator[None]:
    """Inside the block these modules keep nothing for gradients but their inputs.

    What a gradient needs of them is computed once more when it is taken, which may be after the
    block, inside again(). The modules draw no random numbers.
    """

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), recomputing(again)

    def wrapped(forward: Callable) -> Callable:
        def call(*args, **kwargs):
            return checkpointing.checkpoint(
                forward,
                *args,
                use_reentrant=False,
                preserve_rng_state=False,
                context_fn=contexts,
                **kwargs,
            )

        return call

    with ExitStack() as opened:
        for module in modules:
            # Found before the class's own.
            vars(module)["forward"] = wrapped(module.forward)
            opened.callback(vars(module).pop, "forward")
        yield
