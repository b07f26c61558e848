"""Small files of models on the hub: from the cache of huggingface_hub, else fetched.

Without a network one waits for it once in a process, and not long.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from memorization_suite.runs.lazy import Lazy

huggingface_hub = Lazy("huggingface_hub")
constants = Lazy("huggingface_hub.constants")

# Seconds for the hub's first answer.
PATIENCE = 4.0


def hub_file(repo: str, name: str) -> Path | None:
    """A file of a repository on this machine; None if it cannot be had."""
    cached = huggingface_hub.try_to_load_from_cache(repo, name)
    if cached is None:
        return fetched(repo, name)
    return Path(cached) if isinstance(cached, str) else None  # else it is known not to exist


def revision_of(repo: str, *names: str) -> str | None:
    """The commit of a repository that this process uses: the one of the first of the files that can
    be had. None if none can.
    """
    return revision_in(str(constants.HF_HUB_CACHE), repo, names)


@cache
def revision_in(folder: str, repo: str, names: tuple[str, ...]) -> str | None:
    """The same, once in a process: another one may bring a new commit into the cache's folder."""
    for name in names:
        place = hub_file(repo, name)
        for parent in place.parents if place else ():
            if parent.parent.name == "snapshots":
                return parent.name
    return None


@cache
def fetched(repo: str, name: str) -> Path | None:
    """The file after it was put into the cache; None if the hub does not hand it out."""
    if not is_reachable():
        return None
    huggingface_hub.utils.disable_progress_bars()
    try:
        return Path(huggingface_hub.hf_hub_download(repo, name))
    except Exception:  # the library raises a dozen kinds for one fact
        return None


@cache
def is_reachable() -> bool:
    """Whether the hub answers. One short try, where huggingface_hub repeats itself for 25 s."""
    session = huggingface_hub.get_session()
    address = constants.ENDPOINT
    try:
        answer = session.head(address, timeout=PATIENCE)
    except Exception:  # of the network, of a proxy, or HF_HUB_OFFLINE
        return False
    return answer.status_code < 500
