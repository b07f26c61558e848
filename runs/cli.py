"""The command line: flags from settings, help on a screen, and the one place of exit codes."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import itertools
import os
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from memorization_suite.runs.environment import calm_threads
from memorization_suite.runs.library_warnings import heard
from memorization_suite.runs.parts import NAME_MAX
from memorization_suite.runs.plugins import load_installed, load_plugin
from memorization_suite.runs.progress import RESUME
from memorization_suite.runs.settings import (
    Settings,
    closest,
    flag_owners,
    flags,
    takes_many,
    value_type,
)
from memorization_suite.runs.text import fault_text

# After a fault that carries no note of what is kept: (what is said of an error, what is
# said of Ctrl-C).
RESUMES = (f". What is finished is kept. {RESUME}", f". What is finished is kept. {RESUME}")
NOTHING_WRITTEN = (". Nothing was written.", "; nothing was written.")
NOTHING_SAID = ("", "")


class Help(argparse.HelpFormatter):
    """A flag a line where it fits; lines that begin with a blank stay as they are."""

    def __init__(self, prog: str, **options: Any):
        wide = shutil.get_terminal_size().columns >= 98
        super().__init__(prog, max_help_position=34 if wide else 24, **options)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = [
            line if line.startswith(" ") else super(Help, self)._fill_text(line, width, indent)
            for line in text.splitlines()
        ]
        return "\n".join(lines)


class Parser(argparse.ArgumentParser):
    """One line for a wrong argument, exit code 2. Flags that were not typed are absent.

    Every command has --plugin. Where flags come from a registry, argv is what was typed: its
    plugins are loaded before the flags are added.
    """

    def __init__(
        self, prog: str, description: str = "", *, argv: list[str] | None = None, **options: Any
    ):
        options.setdefault("argument_default", argparse.SUPPRESS)
        options.setdefault("formatter_class", Help)
        super().__init__(prog=prog, description=description, allow_abbrev=False, **options)
        self.add_argument(
            "--plugin",
            action=Load,
            metavar="FILE.py",
            help="registers methods, detectors and the like; may be repeated",
        )
        if argv is not None:
            self.load_plugins(values_after(argv, "--plugin"))

    def load_plugins(self, files: Iterable[str]) -> None:
        """Loads the installed plugins and these; a fault is one line, exit code 2."""
        try:
            load_installed()
            for file in files:
                load_plugin(file)
        except ValueError as error:
            self.exit(2, f"{self.prog}: {error}\n")

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message}{self.meant(message)} (--help lists all flags)\n")

    def meant(self, message: str) -> str:
        """`; did you mean --X?` when an unknown flag is near a known one."""
        found = re.match(r"unrecognized arguments: (--[\w-]+)", message)
        near = closest(found[1], self.known_flags()) if found else ""
        return f"; did you mean {near}?" if near else ""

    def known_flags(self) -> list[str]:
        """The flags, and those of the subcommands."""
        known = list(self._option_string_actions)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    known += parser._option_string_actions
        return known

    def typed(self, argv: list[str] | None = None) -> dict[str, Any]:
        """Name -> value of what was typed, and defaults of flags that are no settings."""
        return vars(self.parse_args(argv))


class Load(argparse.Action):
    """Loads the plugin that was typed; no value is left for the settings."""

    def __call__(self, parser, namespace, values, option_string=None):
        parser.load_plugins([values])


def command(
    prog: str,
    work: Callable[[], int | None],
    *,
    after: tuple[str, str] = NOTHING_SAID,
    smaller: str = "--batch_size",
) -> int:
    """Does the work of a command and returns its exit code; a fault becomes one message.

    0: done. 2: wrong arguments or input (ValueError). 1: a fault while running. after: what a fault
    leaves behind, unless it carries a note of that (`runs.progress.Progress`). smaller: the flag
    that helps when the memory does not suffice.
    """
    calm_threads()
    try:
        with heard():
            return work() or 0
    except ValueError as error:
        message, code = str(error), 2
    except OSError as error:
        message, code = fault_text(error), 1
        if error.errno == errno.ENAMETOOLONG:
            message, code = too_long(str(error.filename)), 2
        else:
            message += note_of(error, ". ") or after[0]
    except KeyboardInterrupt as error:
        message, code = f"interrupted{note_of(error, ': ') or after[1]}", 1
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        what = str(error).splitlines()[0]
        message, code = f"{what} Use a smaller {smaller}.{note_of(error, ' ')}", 1
    print(f"{prog}: {message}", file=sys.stderr)
    return code


def too_long(path: str) -> str:
    """What is said of a path that no file can have."""
    longest = max(Path(path).parts, key=lambda name: len(os.fsencode(name)), default="")
    size = len(os.fsencode(longest))
    return (
        f"the name {longest[:60]!r}... is too long for a file or a folder: it has {size} bytes, "
        f"and {NAME_MAX} are possible. Type a shorter one"
    )


def note_of(error: BaseException, before: str) -> str:
    """What an error says of the work that is kept, after `before`; empty if it says nothing."""
    notes = getattr(error, "__notes__", [])
    return f"{before}{' '.join(notes)}" if notes else ""


def boolean(text: str) -> bool:
    """0, 1, false or true."""
    values = {"0": False, "1": True, "false": False, "true": True}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is neither 0 nor 1")
    return values[text.lower()]


def add_flags(
    parser,
    settings: type[Settings],
    *,
    without: Collection[str] = (),
    headings: Mapping[str, Collection[str]] | None = None,
) -> None:
    """The flags of a settings class. Those without a default are required; a bool is a switch.

    headings: of --help -> flags below it, in this order; others stand without a heading.
    """
    left = {option.name: option for option in flags(settings) if option.name not in without}
    groups = []
    for heading, names in (headings or {}).items():
        members = [left.pop(name) for name in names if name in left]
        groups.append((heading, members))
    for option in left.values():
        add_flag(parser, option)
    for heading, members in groups:
        group = parser.add_argument_group(heading) if members else parser
        for option in members:
            add_flag(group, option)


def add_flag(parser, option: dataclasses.Field) -> None:
    """One flag; what is not typed is absent from the namespace."""
    names = [f"--{option.name}"]
    if option.metadata["alias"]:
        names.insert(0, option.metadata["alias"])
    text = option.metadata["help"]
    silent = ("", None, (), dataclasses.MISSING)
    if option.default not in silent and option.default is not False:
        text += f" (default {default_text(option.default)})"
    shown = {
        "dest": option.name,
        "help": text.replace("%", "%%"),
        "default": argparse.SUPPRESS,
    }
    if value_type(option) is bool:
        parser.add_argument(*names, action="store_true", **shown)
        return
    choices = option.metadata["choices"] if not option.metadata["several"] else ()
    parser.add_argument(
        *names,
        type=value_type(option),
        choices=choices or None,
        nargs="+" if takes_many(option) else None,
        metavar=option.metadata["metavar"],
        required=option.default is dataclasses.MISSING,
        **shown,
    )


def examples(*commands: str, more: str = "") -> str:
    """The end of --help: commands to copy, then where there is more."""
    return "\n".join(["examples:", *(f"  python {command}" for command in commands), more]).rstrip()


def default_text(default: Any) -> str:
    """A default as one would type it."""
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def add_owned_flags(
    parser, registry: Mapping[str, type[Settings]], shown: Collection[str], title: str
) -> None:
    """Every flag of every entry of a registry; --help shows those of the entries in `shown`.

    Two entries may share a flag with other defaults, but not with another type.
    """
    group = parser.add_argument_group(title) if shown else parser
    for name, owners in flag_owners(registry).items():
        kinds = {value_type(option) for _, option in owners}
        if len(kinds) > 1:
            names = ", ".join(owner for owner, _ in owners)
            raise TypeError(f"--{name} has different types in {names}")
        told = [(owner, option) for owner, option in owners if owner in shown]
        text = "; ".join(owned_text(owner, option, shown) for owner, option in told)
        kind = kinds.pop()
        switch = {"nargs": "?", "const": True, "type": boolean} if kind is bool else {"type": kind}
        (group if told else parser).add_argument(
            f"--{name}",
            default=argparse.SUPPRESS,
            metavar="{0,1}" if kind is bool else kind.__name__.upper(),
            help=text.replace("%", "%%") if told else argparse.SUPPRESS,
            **switch,
        )


def asked_for(
    argv: list[str], flag: str, known: Collection[str], switches: Collection[str] = ()
) -> list[str]:
    """Known names that were typed after a flag, joined by + or commas, or as a switch: --help shows
    their flags.
    """
    names = [switch.removeprefix("--") for switch in switches if switch in argv]
    for value in values_after(argv, flag):
        names += list(known) if value == "all" else re.split("[+,]", value)
    return [name for name in known if name in names]


def values_after(argv: list[str], flag: str) -> list[str]:
    """What was typed as `--flag VALUE` or `--flag=VALUE`, as often as it was."""
    values = [following for word, following in itertools.pairwise(argv) if word == flag]
    begin = f"{flag}="
    return values + [word.removeprefix(begin) for word in argv if word.startswith(begin)]


def owned_text(owner: str, option: dataclasses.Field, shown: Collection[str]) -> str:
    """What --help says of a method's flag; the method is named when several are shown."""
    default = int(option.default) if isinstance(option.default, bool) else option.default
    text = option.metadata["help"]
    if default not in ("", None):
        text += f" (default {default})"
    return f"{owner}: {text}" if len(shown) > 1 else text


def listing(registry: Mapping[str, Any]) -> str:
    """A text with every entry: paper, cost in NFE per image, flags."""
    lines = []
    for name, cls in registry.items():
        lines += [name, f"    paper: {cls.paper}", f"    NFE per image (N steps): {cls.cost}"]
        for option in flags(cls):
            default = int(option.default) if isinstance(option.default, bool) else option.default
            lines.append(f"    --{option.name} {default}: {option.metadata['help']}")
    return "\n".join(lines)
