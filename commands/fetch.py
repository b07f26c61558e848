"""What the suite does not ship: listed, fetched, verified and placed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from memorization_suite import ROOT
from memorization_suite.download.assets import RECORD, Asset, read_assets, select
from memorization_suite.download.check import Record, checksum, examine, read_record
from memorization_suite.download.place import arrived, get, work_folder
from memorization_suite.download.transfer import TransferError, size_text
from memorization_suite.runs.cli import Parser, add_flags, command
from memorization_suite.runs.places import check_writable
from memorization_suite.runs.progress import next_step
from memorization_suite.runs.settings import Settings, frozen_settings, unkeyed
from memorization_suite.runs.text import fault_text, said_by, table_text

SCRIPT = "download/fetch.py"
RESUMES = ("", ". Rerun the command to resume.")


@frozen_settings
class FetchSettings(Settings):
    """The flags of download/fetch.py."""

    list: bool = unkeyed(
        False, "print the assets with size, place, state of the checksum and source, and leave"
    )
    check: bool = unkeyed(
        False, "say what is there and whole (default: of all); nothing is fetched or written"
    )
    root: Path | None = unkeyed(
        None, "folder below which all have their place (default: the repository)", metavar="DIR"
    )
    assets: Path | None = unkeyed(
        None, "another table, e.g. of mirrors (default: download/assets.toml)", metavar="FILE"
    )
    overwrite: bool = unkeyed(False, "fetch anew and replace what is there but not whole")
    quiet: bool = unkeyed(False, "no progress")


def build_parser() -> Parser:
    """The names, and the flags."""
    parser = Parser(SCRIPT, "Lists, fetches, verifies and places what the suite does not ship.")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="assets or groups (metrics, metric_variants, prompts, groundtruth, models, all)",
    )
    add_flags(parser, FetchSettings)
    return parser


def main(argv: list[str] | None = None) -> int:
    """The command line.

    Returns the exit code: 0 done, 2 wrong arguments or input, 1 a transfer fault, or (--check)
    something not whole.
    """
    typed = build_parser().typed(argv)
    names = typed.pop("names", [])
    return command(SCRIPT, lambda: run(names, FetchSettings(**typed)), after=RESUMES)


def run(names: Sequence[str], settings: FetchSettings) -> int:
    """What the flags ask for. Returns 0 or 1; raises ValueError for wrong arguments, OSError."""
    if not (names or settings.list or settings.check):
        raise ValueError(
            "say what to fetch: names or groups, or all; --list shows them, --check what is there"
        )
    root = settings.root or ROOT
    if not root.is_dir():
        raise ValueError(f"--root {root} is no folder")
    assets = select(read_assets(settings.assets), names or ["all"])
    if settings.list:
        print(listing(assets, read_record(root)))
        return 0
    if settings.check:
        return check(assets, root)
    if not settings.quiet:
        print(announcement(assets, root), file=sys.stderr)
    code = fetch(assets, root, overwrite=settings.overwrite, quiet=settings.quiet)
    script, *flags = assets[0].used_by.split(", ")[0].split(" ")
    if code == 0 and (ROOT / script).is_file():
        next_step(["python", script, *(flags or ["--help"])], settings.quiet)
    return code


def announcement(assets: Sequence[Asset], root: Path) -> str:
    """How many assets are asked for, how large they are, and how much room there is."""
    known = sum(asset.size or 0 for asset in assets)
    unknown = sum(not asset.size for asset in assets)
    size = size_text(known) + (f" and {unknown} of unknown size" if unknown else "")
    free = size_text(shutil.disk_usage(root).free)
    return f"{len(assets)} assets, {size} in all; {free} are free in {root}"


def listing(assets: Sequence[Asset], record: Record) -> str:
    """A line an asset."""
    rows = [
        {
            "name": asset.name,
            "size": size_text(asset.size),
            "checksum": checksum(asset, record),
            "goes to": asset.where,
            "comes from": asset.address or "by hand",
        }
        for asset in assets
    ]
    return table_text(rows)


def check(assets: Sequence[Asset], root: Path) -> int:
    """Prints a line an asset. Returns 1 when one is missing or broken, else 0.

    Raises ValueError and OSError.
    """
    record = read_record(root)
    width = max(len(asset.name) for asset in assets)
    faults = 0
    for asset in assets:
        state, why = examine(asset, root, record)
        if state == "missing":
            here = arrived(work_folder(asset, root))
            why = f"{size_text(here)} of it are here" if here else f"python {SCRIPT} {asset.name}"
        elif state != "broken":
            why = f"checksum: {why}"
        print(f"{asset.name:<{width}}  {state:<7}  {asset.where}  ({why})")
        faults += state in ("missing", "broken")
    return 1 if faults else 0


def check_room(assets: Sequence[Asset], root: Path, *, overwrite: bool) -> None:
    """Raises ValueError when what is to come has no room on the disk, as far as sizes are known."""
    wanted = [asset for asset in assets if overwrite or not (root / asset.path).exists()]
    size = sum(max(0, asset.size - arrived(work_folder(asset, root))) for asset in wanted)
    free = shutil.disk_usage(root).free
    if size > free:
        raise ValueError(
            f"no room on the disk of {root}: {size_text(size)} are to come, and {size_text(free)} "
            "are free. Make room there, or give another --root"
        )


def fetch(assets: Sequence[Asset], root: Path, *, overwrite: bool, quiet: bool) -> int:
    """Gets one after the other; a fault of one does not keep the others.

    Returns 1 when there was a fault, else 0. Raises ValueError, and OSError when another fetch is
    running.
    """
    check_room(assets, root, overwrite=overwrite)
    check_writable(root, "--root")
    lock = (root / RECORD).with_name(".fetch.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    code = 0
    try:
        with FileLock(lock, timeout=0):
            for asset in assets:
                try:
                    done = get(asset, root, overwrite=overwrite, quiet=quiet)
                    print(f"{asset.name}: {done}", flush=True)
                except (TransferError, OSError) as error:
                    told = fault_text(error) if isinstance(error, OSError) else said_by(error)
                    print(f"{SCRIPT}: {asset.name}: {told}", file=sys.stderr)
                    code = 1
    except Timeout as error:
        raise OSError(f"another fetch into {root} is running") from error
    return code
