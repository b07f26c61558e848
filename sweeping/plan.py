"""A sweep file: which runs it asks for. Everything is checked before the first one starts.

    [common]                        # flags of every run
    model_id = "tiny"
    n_samples_per_prompt = 2

    [[run]]                         # one run
    method = "no_mitigation"

    [[run]]                         # lists: one run for every combination
    method = "batch_wise"
    gamma = [0, 3, 5]

Runs lie in <method>/<settings>_seed<seed>; a general setting that varies and is not told there
(steps, model, prompt file, ...) is a folder above.
"""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from memorization_suite.generation.command import build_parser
from memorization_suite.generation.plan import Plan, Settings, plan_run

OF_THE_SWEEP = (
    "output_path",
    "overwrite",
    "quiet",
    "list_methods",
    "help",
)  # flags that a file cannot set
NEED_NO_FOLDER = ("guidance_scale", "seed", "start", "end", "device", "output_path")
APART = set(Settings.__dataclass_fields__) - set(
    NEED_NO_FOLDER
)  # what a run folder's name does not tell: where it varies,
# runs get folders of their own


@dataclass(frozen=True)
class Entry:
    """One run. name: its own settings, and common ones that vary."""

    name: str
    argv: list[str]
    plan: Plan


def read_sweep(path: Path, typed: Collection[str] = ()) -> list[tuple[str, dict]]:
    """(name, settings) of every run, in the file's order; the last list changes fastest. Raises
    ValueError for a file that is no sweep.

    typed: flags of the command line, which win over the file's.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"the sweep file {path} cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML file ({error})") from error
    runs = content.get("run")
    if (
        set(content) - {"common", "run"}
        or not isinstance(runs, list)
        or not runs
        or not isinstance(content.get("common", {}), dict)
    ):
        raise ValueError(f"{path} is no sweep: it takes a table [common] and one [[run]] or more")
    tables = [content.get("common", {}), *runs]
    for number, table in enumerate(tables):
        check_table(f"{path}: {f'run {number}' if number else '[common]'}", table)
    found = []
    for own in runs:
        lists = {
            name: value if isinstance(value, list) else [value]
            for name, value in (tables[0] | own).items()
            if name not in typed
        }
        for chosen in itertools.product(*lists.values()):
            settings = dict(zip(lists, chosen))
            named = [name for name in lists if name in own or len(lists[name]) > 1]
            found.append(
                (
                    " ".join(f"{name}={settings[name]}" for name in named)
                    or "common settings alone",
                    settings,
                )
            )
    return found


def check_table(where: str, table: object) -> None:
    """Raises ValueError for a name that is no flag, or a value that no flag can have."""
    if not isinstance(table, dict):
        raise ValueError(f"{where} is no table: write [[run]]")
    known = {
        option[2:] for option in build_parser()._option_string_actions if option.startswith("--")
    } - set(OF_THE_SWEEP)
    for name, value in table.items():
        if name not in known:
            raise ValueError(
                f"{where} sets {name!r}, which is no flag of generate_images.py that a sweep can "
                "set"
            )
        values = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(one, (bool, int, float, str)) for one in values):
            raise ValueError(
                f"{where} sets {name} to {value!r}: it takes a number, a text, true, or a list of "
                "those"
            )


def arguments(settings: dict) -> list[str]:
    """As one would type them; a flag that is false is not typed."""
    return [
        text
        for name, value in settings.items()
        if value is not False
        for text in ([f"--{name}"] if value is True else [f"--{name}={value}"])
    ]


def plan_sweep(path: Path, out: Path, more: list[str]) -> list[Entry]:
    """Every run, once. more: flags of the command line, for all of them. Raises ValueError that
    says which run is wrong.
    """
    entries: dict[Path, Entry] = {}
    typed = {
        "batch_size" if text == "-b" else text[2:].split("=")[0]
        for text in more
        if text.startswith("-")
    }
    if typed & set(OF_THE_SWEEP):
        raise ValueError(
            f"--{min(typed & set(OF_THE_SWEEP))} is no flag of a sweep (--help lists all)"
        )
    runs = read_sweep(path, typed)
    varying = sorted(
        name for name in APART if len({repr(settings.get(name)) for _, settings in runs}) > 1
    )
    for number, (label, settings) in enumerate(runs, 1):
        folder = "_".join(f"{name}{plain(settings.get(name, 'default'))}" for name in varying)
        argv = [*arguments(settings), *more, f"--output_path={out / folder}"]
        parser = build_parser()
        parser.error = raise_value_error  # type: ignore[assignment]
        try:
            entry = Entry(label, argv, plan_run(parser.parse_args(argv)))
        except ValueError as error:
            raise ValueError(f"{path}, run {number} of {len(runs)} ({label}): {error}") from error
        twin = entries.setdefault(entry.plan.folder, entry)
        if what_is_made(twin.plan) != what_is_made(entry.plan):
            raise ValueError(
                f"{path}: '{twin.name}' and '{label}' would share the folder {entry.plan.folder}, "
                "and are not the same"
            )
    return list(entries.values())


def what_is_made(plan: Plan) -> tuple:
    """Images, everything that decides their bytes, and what is kept beside them."""
    return plan.identity(), plan.settings.start, plan.settings.end, plan.save_latents, plan.trace


def plain(value: object) -> str:
    """A value as part of a folder name: a path's last part, without what a name cannot have."""
    return re.sub(r"[^\w.-]", "-", str(value).rstrip("/").rsplit("/", 1)[-1]).lstrip(".") or "-"


def raise_value_error(message: str):
    """In the place of argparse's exit."""
    raise ValueError(message)
