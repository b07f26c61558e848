"""Method flags on the command line: each is declared once, beside its method, and known to be typed
or not.
"""

from __future__ import annotations

import argparse

from memorization_suite.mitigation.base import Mitigation, flags
from memorization_suite.mitigation.registry import build_mitigation, combine, methods
from memorization_suite.sampling.flags import add_flags, flag_owners, listing

OFFICIAL = "adj_init_noise"  # the official script's one method, with --batch_wise or --per_sample


def add_method_arguments(parser: argparse.ArgumentParser) -> None:
    """--method, the official mode switches, and every flag of every method. What is not typed is
    absent from the namespace.
    """
    group = parser.add_argument_group("method")
    group.add_argument(
        "--method",
        default="no_mitigation",
        metavar="NAME",
        help=f"one of {', '.join(methods())}, or several joined by +; or the official {OFFICIAL} "
        "with --batch_wise or --per_sample",
    )
    group.add_argument(
        "--batch_wise",
        action="store_true",
        help=f"with --method {OFFICIAL}: a few steps for the whole batch, then delayed guidance",
    )
    group.add_argument(
        "--per_sample",
        action="store_true",
        help=f"with --method {OFFICIAL}: optimise each noise until --target_loss",
    )
    group = parser.add_argument_group(
        "flags of the methods (defaults: as published; a model's preset may replace them)"
    )
    add_flags(group, methods())


def method_name(args: argparse.Namespace) -> str:
    """The registered name that was asked for. Raises ValueError for an unknown one or for
    contradicting switches.
    """
    modes = [mode for mode in ("batch_wise", "per_sample") if getattr(args, mode)]
    if args.method == OFFICIAL:
        if len(modes) != 1:
            raise ValueError(
                f"--method {OFFICIAL} needs exactly one of --batch_wise and --per_sample"
            )
        return modes[0]
    if modes and args.method != modes[0]:
        raise ValueError(
            f"--{modes[0]} goes with --method {OFFICIAL}, not with --method {args.method}"
        )
    parts = args.method.split("+")
    for part in parts:
        if part not in methods():
            raise ValueError(
                f"there is no method {part!r}; there are {', '.join([OFFICIAL, *methods()])} "
                "(--list_methods tells more)"
            )
    if len(set(parts)) < len(parts):
        raise ValueError(f"--method {args.method} names a method twice")
    return args.method


def method_from_args(args: argparse.Namespace, preset: dict[str, dict]) -> Mitigation:
    """The method with what was typed, else the preset's values, else the published defaults. Raises
    ValueError.
    """
    name, owners = method_name(args), flag_owners(methods())
    typed = {flag: getattr(args, flag) for flag in owners if hasattr(args, flag)}
    own = {option.name: option for part in name.split("+") for option in flags(methods()[part])}
    for flag in typed:
        if flag not in own:
            raise ValueError(
                f"--method {name} does not take --{flag} (a flag of "
                f"{', '.join(method for method, _ in owners[flag])})"
            )
        if own[flag].metadata["excludes"] in typed:
            raise ValueError(f"--{flag} and --{own[flag].metadata['excludes']} exclude each other")
    replaced = {flag for flag in own if own[flag].metadata["excludes"] in typed} | {
        own[flag].metadata["excludes"] for flag in typed
    }
    tables = {
        part: {flag: value for flag, value in preset.get(part, {}).items() if flag not in replaced}
        for part in name.split("+")
    }
    return (
        combine(tables, typed)
        if len(tables) > 1
        else build_mitigation(name, **(tables[name] | typed))
    )


def list_methods() -> str:
    """A text with every method: paper, cost in UNet rows per image, flags."""
    return listing(methods())
