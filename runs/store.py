"""One way to keep results on disk and to go on after a stop.

A store is a folder with an identity (`manifest.json`) and tables (CSV). Work is added in batches:
their rows lie in `.parts/` until they are put into the tables. Nothing half-written has a final
name, so what has its rows (and, of a run, its image) is done, and a stopped run goes on with the
rest: `RunFolder.missing` says what that is.

Several processes may add at once, each batch in a file of its own. What is read and then written
anew, the manifest and the tables, only one process changes at a time (`changing`).
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path, PurePath
from typing import Any

from memorization_suite.runs.batches import Batches
from memorization_suite.runs.claims import FOLDER, clock_of
from memorization_suite.runs.elsewhere import free_place, suffix_of
from memorization_suite.runs.environment import environment, now
from memorization_suite.runs.files import kind_of_place, write_json
from memorization_suite.runs.growth import grown
from memorization_suite.runs.identity import differences, differing, renewed
from memorization_suite.runs.leftovers import remove_leftovers
from memorization_suite.runs.nobodys import owned
from memorization_suite.runs.parse import json_of
from memorization_suite.runs.places import check_writable, is_of_path
from memorization_suite.runs.tables import Damaged
from memorization_suite.runs.text import said_by

SCHEMA = 1
CLAIMS = FOLDER.format("*")
FILES = ("manifest.json", "config.json", ".parts", CLAIMS, ".*.part")  # of every store


class Store(Batches):
    """A folder of results. A subclass names its tables, as of `Batches`, and files."""

    files: tuple[str, ...] = ()  # patterns of what is written besides FILES and the tables
    levels = 1  # of folders below --output_path

    def __init__(self, path: Path):
        super().__init__(path)
        # When the run began that this process adds to, as its manifest says; empty: to none yet.
        self.begun = ""
        # Folders that `prepare` made, the innermost first.
        self.new_folders: list[Path] = []

    @property
    def own(self) -> tuple[str, ...]:
        """Patterns of everything that this store writes."""
        return (*FILES, *(f"{table}.csv" for table in self.tables), *self.files)

    # --- identity ---

    def prepare(self, identity: dict, *, overwrite: bool = False) -> None:
        """Makes sure that the folder is there and fits; nothing in it is changed, but that an
        identity which an earlier version wrote of the same work is put into today's words.

        identity: everything that decides the results. Raises ValueError when the folder cannot be
        used, or holds another run or other files.
        """
        lacking = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.new_folders = lacking
        except OSError as error:
            raise ValueError(
                f"cannot write to the run folder {self.path}: {error.strerror}. "
                "Give another --output_path."
            ) from error
        check_writable(self.path, "--output_path", "the run folder")
        if not (self.path / "manifest.json").exists():
            self.check_no_foreign_files()
        elif not overwrite:
            manifest = self.manifest() or {}
            self.check_identity(manifest, identity)
            if renewed(manifest["identity"], identity)[1]:
                self.renew(identity)

    def remove_if_empty(self) -> None:
        """Removes the folders that `prepare` made and that nothing was written into."""
        for folder in self.new_folders:
            try:
                folder.rmdir()
            except OSError:  # it is not empty, or it is gone
                return

    def start(
        self,
        identity: dict,
        *,
        config: dict,
        overwrite: bool = False,
        once: Mapping[str, Any] | None = None,
        **facts: Any,
    ) -> None:
        """Begins in a checked folder, or goes on. Raises OSError, and ValueError when another run
        began there meanwhile.

        What a killed process was writing is removed. config: all arguments and the command, for
        people. facts: for the manifest beside the identity. once: the same, but what is noted there
        stays.
        """
        self.path.mkdir(parents=True, exist_ok=True)  # another that was refused may have removed it
        remove_leftovers(self.path, [".parts", *(name for name in self.files if "*" not in name)])
        with self.changing() as claim:
            clock_of(self.path)  # a client of NFS looks at the folder again
            manifest = None if overwrite else self.manifest()
            if manifest is None:
                claim.check()
                self.clear()
                manifest = {
                    "schema": SCHEMA,
                    "identity": identity,
                    "started": now(),
                    "environments": [],
                }
            else:
                self.check_identity(manifest, identity)
                manifest = manifest | {"identity": renewed(manifest["identity"], identity)[0]}
                manifest = grown(manifest, identity)
            used = environment()
            environments = manifest["environments"]
            if used not in environments:
                environments = [*environments, used]
            changed = {"environments": environments, "finished": None, **facts}
            noted = {**(once or {}), **manifest, **changed}
            self.begun = manifest["started"]
            write_json(self.path / "manifest.json", noted, claim.check)
            write_json(self.path / "config.json", config)

    def finish(self, **facts: Any) -> None:
        """Puts all parts into the tables, and notes the end, with facts for people."""
        with self.changing(closing=True) as claim:
            counts = self.put_into_tables(claim)
            with suppress(OSError):  # there is none, or another process is at work
                (self.path / ".parts").rmdir()
            manifest = self.manifest() or {}
            noted = manifest | {"finished": now(), **self.end_facts(counts), **facts}
            write_json(self.path / "manifest.json", noted, claim.check)

    def end_facts(self, counts: Mapping[str, int]) -> dict[str, Any]:
        """What the manifest says of finished work beside its end. counts: keys in each table."""
        return {}

    def check_begun(self) -> None:
        """Raises OSError when another command has started the run over meanwhile."""
        if self.begun and (self.manifest() or {}).get("started") != self.begun:
            error = OSError(
                f"{self.path} was started over by another command meanwhile; nothing more is "
                "written there"
            )
            error.add_note("What that command makes is kept. Give another --output_path for this.")
            raise error

    def close(self, asked: dict[str, Any]) -> None:
        """Notes the end of work of which everything that was asked for is made."""
        self.finish()

    def close_if_whole(self) -> bool:
        """Whether the work is at its end. It is ended now if everything that the manifest asks for
        has its rows, the last that is written of a batch: of several processes the last one does
        so, or any later command.
        """
        manifest = self.manifest() or {}
        if manifest.get("finished") or "asked" not in manifest:
            return bool(manifest.get("finished"))
        if not self.is_whole(manifest["asked"]) or not os.access(self.path, os.W_OK):
            return False
        self.close(manifest["asked"])
        return True

    def is_whole(self, asked: dict[str, Any]) -> bool:
        """Whether everything has its rows that is asked for, as the manifest has it."""
        raise NotImplementedError

    def manifest(self) -> dict | None:
        """manifest.json, or None where there is none. Raises ValueError for another file."""
        file = self.path / "manifest.json"
        try:
            manifest = json_of(file.read_text(encoding="utf-8"))
            if (
                manifest["schema"] != SCHEMA
                or not isinstance(manifest["identity"], dict)
                or not isinstance(manifest["environments"], list)
            ):
                raise ValueError(f"no run of schema {SCHEMA}")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            if is_of_path(error):
                raise
            fault = kind_of_place(file) or said_by(error)
            raise Damaged(
                f"{file} is no manifest of a run ({fault}): "
                "move the folder away, or make the run again with --overwrite"
            ) from error
        return manifest

    def config(self) -> dict:
        """config.json; nothing if there is none. Raises ValueError."""
        file = self.path / "config.json"
        if not file.exists():
            return {}
        try:
            return dict(json_of(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            fault = kind_of_place(file) or said_by(error)
            raise Damaged(
                f"{file} is no configuration of a {self.what} ({fault}): give the command of the "
                f"{self.what} again, which writes it anew"
            ) from error

    def readable_config(self) -> dict:
        """config.json; nothing where there is none, or a damaged one, which is written anew by
        whoever goes on.
        """
        with suppress(OSError, ValueError):
            return self.config()
        return {}

    def command_again(self) -> str:
        """The command that makes what is missing, as config.json has it; it starts nothing over.
        Empty where it is not known.
        """
        with suppress(ValueError):
            words = shlex.split(str(self.readable_config().get("command", "")))
            return shlex.join(word for word in words if word != "--overwrite")
        return ""

    def is_finished(self) -> bool:
        """Whether the run came to its end."""
        return bool((self.manifest() or {}).get("finished"))

    def check_identity(self, manifest: dict, identity: dict, base: Path | None = None) -> None:
        """Raises ValueError that names what differs, and a place that is free.

        base: the --output_path, below which this folder lies; of a sweep it is not the run's own.
        """
        there = manifest["identity"]
        changed = differing(there, identity, self.readable_config())
        if not changed:
            return
        told = "; ".join(differences(there, identity, self.readable_config()))
        above = base or self.path.parents[self.levels - 1]
        inner = self.path.relative_to(above)
        place = free_place(
            above,
            suffix_of(changed, self.readable_config()),
            lambda folder: Store(folder / inner).has_room(identity),
        )
        over = "" if base else ", or --overwrite to start over"
        raise ValueError(
            f"{self.path} holds another {self.what} ({told}). "
            f"Give this one a place of its own with --output_path {place}{over}."
        )

    def has_room(self, identity: dict) -> bool:
        """Whether the folder can be used: there is none, nothing in it, or this very work."""
        try:
            manifest = self.manifest()
            if manifest is not None:
                return not differing(manifest["identity"], identity, self.readable_config())
            return not owned(os.listdir(self.path))
        except FileNotFoundError:
            return True
        except (OSError, ValueError):
            return False

    def renew(self, identity: dict) -> None:
        """Puts the identity into today's words where an earlier version wrote it, and says so."""
        finished = self.is_finished()
        with self.changing(closing=finished) as claim:
            manifest = self.manifest() or {}
            self.check_identity(manifest, identity)
            whole, names = renewed(manifest["identity"], identity)
            if names:
                noted = manifest | {"identity": whole}
                write_json(self.path / "manifest.json", noted, claim.check)
        if names:
            print(
                f"{self.path} is of an earlier version, which looked at other files or other parts "
                f"of {', '.join(names)}: they are the same, and from now on what decides the "
                "results must be",
                file=sys.stderr,
            )

    def check_no_foreign_files(self) -> None:
        """Raises ValueError when something lies in the folder that no run writes."""
        foreign = sorted(
            name
            for name in owned(os.listdir(self.path))
            if not any(PurePath(name).match(pattern) for pattern in self.own)
        )
        if foreign:
            raise ValueError(
                f"{self.path} holds files that are of no {self.what} ({foreign[0]}). "
                "Give another --output_path."
            )

    def clear(self) -> None:
        """Removes what a run writes, and nothing else; the manifest first, without which nothing
        is done.
        """
        (self.path / "manifest.json").unlink(missing_ok=True)
        for name in os.listdir(self.path):
            if fnmatch(name, CLAIMS) or not any(fnmatch(name, pattern) for pattern in self.own):
                continue
            entry = self.path / name
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)


@contextmanager
def beginning(stores: Collection[Store]) -> Iterator[None]:
    """A block that prepares stores and starts them. One that is left by an error before that leaves
    no empty folder behind.
    """
    try:
        yield
    except BaseException:
        for store in stores:
            store.remove_if_empty()
        raise


@contextmanager
def publishing(stores: Collection[Store]) -> Iterator[None]:
    """Writes the tables after the block, also when it is left by an error; that is then the one
    that is told, whatever the writing does.
    """
    try:
        yield
    except BaseException:
        with suppress(OSError, ValueError):
            for store in stores:
                store.publish()
        raise
    for store in stores:
        store.publish()
