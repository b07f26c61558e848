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


# (folder of the cache, repository) -> the commit that this process uses. Another process may bring
# a newer one into the cache.
COMMITS: dict[tuple[str, str], str] = {}


def hub_file(repo: str, name: str) -> Path | None:
    """A file of a repository on this machine, all of one commit; None if it cannot be had."""
    about = (str(constants.HF_HUB_CACHE), repo)
    commit = COMMITS.get(about)
    cached = huggingface_hub.try_to_load_from_cache(repo, name, revision=commit)
    if cached is None:
        place = fetched(repo, name, commit)
    else:
        place = Path(cached) if isinstance(cached, str) else None  # else it is known not to exist
    found = commit_of(place) if place else ""
    if found:
        COMMITS.setdefault(about, found)
    return place


def revision_of(repo: str, *names: str) -> str | None:
    """The commit of a repository that this process uses. None if none of the files can be had."""
    if any(hub_file(repo, name) for name in names):
        return COMMITS.get((str(constants.HF_HUB_CACHE), repo))
    return None


def commit_of(place: Path) -> str:
    """The commit whose file this is, by its place in the cache; empty elsewhere."""
    return next((path.name for path in place.parents if path.parent.name == "snapshots"), "")


@cache
def fetched(repo: str, name: str, commit: str | None = None) -> Path | None:
    """The file after it was put into the cache; None if the hub does not hand it out."""
    if not is_reachable():
        return None
    huggingface_hub.utils.disable_progress_bars()
    try:
        return Path(huggingface_hub.hf_hub_download(repo, name, revision=commit))
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
