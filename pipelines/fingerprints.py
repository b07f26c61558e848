"""What tells models apart: their content, not where they lie or what they are called."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from memorization_suite.pipelines.family import Family
from memorization_suite.pipelines.hub import revision_of
from memorization_suite.pipelines.kinds import UNET_FILES, reader
from memorization_suite.pipelines.model_files import files_of_part, former_files_of_part
from memorization_suite.pipelines.models import INDEX, family_of, read_index, resolve_model
from memorization_suite.runs.hashes import content_hash, content_hashes, hash_of_all
from memorization_suite.runs.identity import Content
from memorization_suite.runs.plugins import PLUGINS, plugins_of

# What kinds of files earlier versions looked at.
FORMER_FILES = (".json", ".txt", ".safetensors", ".bin")


def fingerprint(model_id: str, tokenizer: str = "") -> Content:
    """A model for an identity: the hash of every file that is read of a folder, the commit of a hub
    id. A plugin that brings the family is named with its hash. tokenizer: the folder beside a model
    of one file.

    Raises ValueError for what is no model, OSError for files that cannot be read.
    """
    source = resolve_model(model_id)
    folder = Path(source)
    if folder.is_file():
        told = f"sha256 {content_hash(folder)[:32]}"
        if not tokenizer:
            return Content(told, model_id, flag="model_id")
        words = Path(tokenizer)
        now, before = (
            f"{told}, tokenizer {hash_of(words, files(words))}"
            for files in (files_of_part, former_files_of_part)
        )
        return content(now, model_id, "model_id", lambda: [before])
    if folder.is_dir():
        family = family_of(read_index(folder))
        told = hash_of(folder, family.files(folder)) + plugin_of(family)
        return content(told, model_id, "model_id", lambda: former_fingerprints(folder, family))
    commit = revision_of(source, INDEX)
    if commit is None:
        return unknown_revision(source, "model_id")
    told = f"{source}@{commit}" + plugin_of(family_of(reader(source)(INDEX)))
    return content(told, model_id, "model_id", lambda: [source])


def unet_fingerprint(unet_id: str | None) -> Content | None:
    """The same of another UNet, itself or in the subfolder `unet`; None without one."""
    if unet_id is None:
        return None
    folder = Path(unet_id)
    if folder.is_dir():
        itself = (folder / "config.json").is_file()
        part = folder if itself else folder / "unet"
        told = hash_of(part, files_of_part(part))
        return content(told, unet_id, "unet_id", lambda: former_unet_fingerprints(unet_id, part))
    itself_or_below = UNET_FILES[::-1]
    commit = revision_of(unet_id, *itself_or_below)
    if commit is None:
        return unknown_revision(unet_id, "unet_id")
    return content(f"{unet_id}@{commit}", unet_id, "unet_id", lambda: [unet_id])


def hash_of(folder: Path, files: Iterable[Path]) -> str:
    """A hash over the files' names and contents."""
    hashes = content_hashes(files)
    named = {path.relative_to(folder).as_posix(): sha256 for path, sha256 in hashes.items()}
    return f"sha256 {hash_of_all(named)[:32]}"


def plugin_of(family: Family) -> str:
    """The plugin that brings a family, as the end of a fingerprint."""
    found = plugins_of(type(family)).items()
    return "".join(f", plugin {plugin} {sha256}" for plugin, sha256 in found)


def former_plugin_of(family: Family) -> str:
    """The same as earlier versions wrote it."""
    found = {plugin: PLUGINS[plugin] for plugin in plugins_of(type(family))}
    return "".join(
        f", plugin {name} {(plugin.former or plugin.sha256)[:16]}" for name, plugin in found.items()
    )


# --- what earlier versions wrote ---


def content(told: str, label: str, flag: str, former: Callable[[], Collection[str]]) -> Content:
    """A fingerprint. former: what earlier versions wrote, each of which saw other files of it. A
    model that lay elsewhere then, and is still there, is compared by what it is now.
    """

    def was(there: object, named: str) -> bool:
        if there not in former():
            return False
        elsewhere = bool(named) and Path(named).is_dir() and named != label
        return not elsewhere or again(flag, named) in (told, "")

    return Content(told, label, flag=flag, was=was)


def again(flag: str, named: str) -> str:
    """The fingerprint of what a flag gave then; empty for what is no model any more."""
    try:
        return str(fingerprint(named) if flag == "model_id" else unet_fingerprint(named))
    except (ValueError, OSError):
        return ""


def unknown_revision(repo: str, flag: str) -> Content:
    """A hub id of which there is no file: any commit that was known before may be meant."""

    def was(there: object, named: str) -> bool:
        return isinstance(there, str) and there.startswith(f"{repo}@")

    return Content(repo, repo, flag=flag, was=was, known=False)


def former_fingerprints(folder: Path, family: Family) -> list[str]:
    """What earlier versions wrote of a folder; the second also saw files that are not read."""
    counted = hash_of(folder, family.former_files(folder)) + plugin_of(family)
    return [former_fingerprint(folder), counted]


def former_unet_fingerprints(unet_id: str, part: Path) -> list[str]:
    """The same of another UNet."""
    return [unet_id, hash_of(part, former_files_of_part(part))]


def former_fingerprint(folder: Path) -> str:
    """What earlier versions wrote of a folder: its name, and a hash over the names, sizes and first
    bytes of its parts' files.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        lies_beside = path.parent == folder and path.name != INDEX
        if lies_beside or path.suffix not in FORMER_FILES:
            continue
        digest.update(f"{path.relative_to(folder)} {path.stat().st_size} ".encode())
        with open(path, "rb") as file:
            digest.update(file.read(2**20))
    told = f"folder {folder.name}, sha256 {digest.hexdigest()[:16]}"
    return told + former_plugin_of(family_of(read_index(folder)))
