"""The command line of download/fetch.py."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from memorization_suite.download.assets import RECORD, ROOT, TABLE, Asset, read_assets, select
from memorization_suite.download.check import checksum, examine, read_record
from memorization_suite.download.place import arrived, get, size_text, work_folder
from memorization_suite.download.transfer import TransferError


class Parser(argparse.ArgumentParser):
    """One line for a wrong argument, exit code 2."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message} (--help lists all flags)\n")


def build_parser() -> argparse.ArgumentParser:
    """All flags."""
    parser = Parser(
        prog="download/fetch.py",
        description="Lists, fetches, verifies and places what the suite does not ship.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="assets or groups (metrics, prompts, groundtruth, models, all)",
    )
    parser.add_argument(
        "--list",
        action="store_true",
        help="print the assets with size, place, state of the checksum and source, and leave",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="say what is there and whole (default: of all); nothing is fetched or written",
    )
    parser.add_argument(
        "--root",
        type=Path,
        default=ROOT,
        metavar="DIR",
        help="folder below which all have their place (default: the repository)",
    )
    parser.add_argument(
        "--assets",
        type=Path,
        default=TABLE,
        metavar="FILE",
        help="another table, e.g. of mirrors (default: download/assets.toml)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="fetch anew and replace what is there but not whole",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser


def table(assets: Sequence[Asset], record: dict[str, dict]) -> str:
    """A line an asset."""
    rows = [("name", "size", "checksum", "goes to", "comes from")]
    rows += [
        (
            asset.name,
            size_text(asset.size),
            checksum(asset, record),
            asset.where,
            asset.address or "by hand",
        )
        for asset in assets
    ]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows
    )


def check(assets: Sequence[Asset], root: Path) -> int:
    """Prints a line an asset. Returns 1 when one is missing or broken, else 0. Raises ValueError
    and OSError.
    """
    record, states = read_record(root), []
    width = max(len(asset.name) for asset in assets)
    for asset in assets:
        state, why = examine(asset, root, record)
        if state == "missing":
            here = arrived(work_folder(asset, root))
            why = (
                f"{size_text(here)} of it are here"
                if here
                else f"python download/fetch.py {asset.name}"
            )
        elif state != "broken":
            why = f"checksum: {why}"
        print(f"{asset.name:<{width}}  {state:<7}  {asset.where}  ({why})")
        states.append(state)
    return 1 if {"missing", "broken"} & set(states) else 0


def fetch(assets: Sequence[Asset], root: Path, *, overwrite: bool, quiet: bool) -> int:
    """Gets one after the other; a fault of one does not keep the others. Returns 1 when there was a
    fault, else 0. Raises ValueError, Timeout.
    """
    faults = 0
    lock = root / RECORD
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock.with_name(".fetch.lock"), timeout=0):
        for asset in assets:
            try:
                print(
                    f"{asset.name}: {get(asset, root, overwrite=overwrite, quiet=quiet)}",
                    flush=True,
                )
            except (TransferError, OSError) as error:
                complain(f"{asset.name}: {error}")
                faults += 1
    return 1 if faults else 0


def run(args: argparse.Namespace) -> int:
    """What the flags ask for. Returns 0 or 1; raises ValueError for wrong arguments, Timeout when
    another fetch is running, OSError.
    """
    if not (args.names or args.list or args.check):
        raise ValueError(
            "say what to fetch: names or groups, or all; --list shows them, --check what is there"
        )
    if not args.root.is_dir():
        raise ValueError(f"--root {args.root} is no folder")
    assets = select(read_assets(args.assets), args.names or ["all"])
    if args.list:
        print(table(assets, read_record(args.root)))
        return 0
    if args.check:
        return check(assets, args.root)
    return fetch(assets, args.root, overwrite=args.overwrite, quiet=args.quiet)


def complain(message: str) -> None:
    """One line on stderr."""
    print("download/fetch.py:", *message.split(), file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code: 0 done, 2 wrong arguments or input, 1 a transfer
    fault, or (--check) something not whole.
    """
    args = build_parser().parse_args(argv)
    try:
        return run(args)
    except ValueError as error:
        complain(str(error))
        return 2
    except Timeout:
        complain(f"another fetch into {args.root} is running")
    except OSError as error:
        complain(str(error))
    except KeyboardInterrupt:
        complain("interrupted; the same command goes on where it stopped")
    return 1
