"""--help: a page under headings, which ends in commands that can be copied."""

import re
import shlex

import pytest

from memorization_suite import detect_memorization, generate_images, make_report, sweep
from memorization_suite.commands import score_scripts
from memorization_suite.commands.detect_plan import Request as Detection
from memorization_suite.commands.generate_plan import Request, plan
from memorization_suite.commands.settings import HEADINGS
from memorization_suite.metrics.base import Scoring
from memorization_suite.metrics.scripts import CHANGE, COPIES, PREFERENCE
from memorization_suite.runs.settings import flag_names

SCRIPTS = {f"metrics/{script.name}": script for script in (COPIES, PREFERENCE)}
SCRIPTS[f"metrics/{CHANGE.name}"] = CHANGE
DOORS = ["generate_images.py", "detect_memorization.py", "sweep.py", "make_report.py", *SCRIPTS]


def parser_of(door: str, argv: list[str]):
    """The parser of a command, and the arguments that are left for it."""
    if door in SCRIPTS:
        return score_scripts.build_parser(SCRIPTS[door], argv), argv
    if door == "make_report.py":
        return make_report.build_parser(), argv
    if argv and argv[0] in detect_memorization.SUBCOMMANDS:
        return detect_memorization.build_subparser(argv[0]), argv[1:]
    module = {
        "generate_images.py": generate_images,
        "detect_memorization.py": detect_memorization,
        "sweep.py": sweep,
    }[door]
    return module.build_parser(argv), argv


def shown(door: str) -> str:
    return parser_of(door, [])[0].format_help()


def commands(door: str) -> list[list[str]]:
    """The examples at the end of --help, in words."""
    _, _, end = shown(door).partition("\nexamples:\n")
    return [shlex.split(line)[1:] for line in end.splitlines() if line.startswith("  python ")]


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")


@pytest.mark.parametrize("door", DOORS)
def test_it_fits_on_a_screen_and_ends_in_examples(door):
    lines = shown(door).splitlines()
    assert len(lines) <= 64 and lines[0].startswith("usage: ") and lines[0].endswith("[flags]")
    assert all(len(line) <= 100 for line in lines if not line.startswith("  python"))
    assert commands(door)


@pytest.mark.parametrize("door", DOORS)
def test_the_examples_are_understood(door):
    for script, *argv in commands(door):
        assert script == door
        parser, rest = parser_of(door, argv)
        assert parser.parse_args(rest)


def test_the_examples_on_the_embedded_model_are_planned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_prompts.txt").write_text("a red lantern\n" * 10)
    planned = 0
    for _, *argv in commands("generate_images.py"):
        if "tiny" in argv:
            plan(**generate_images.build_parser(argv).typed(argv))
            planned += 1
    assert planned == 2


def test_every_general_flag_has_its_heading():
    known = {name for names in HEADINGS.values() for name in names}
    assert known == {*flag_names(Request), *flag_names(Detection)}
    assert {name for names in score_scripts.HEADINGS.values() for name in names} == {
        *flag_names(Scoring)
    }


def test_headings_are_shown_where_there_are_flags():
    generation = shown("generate_images.py")
    found = re.findall(r"^(\w+):$", generation, re.M)
    assert found == ["options", "model", "method", "prompts", "sampling", "output", "examples"]
    assert "\nflags of" not in generation
    typed = generate_images.build_parser(["--method", "per_sample"]).format_help()
    assert "\nflags of per_sample:\n" in typed
