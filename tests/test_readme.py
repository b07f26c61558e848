"""What the README tells people to type is understood, and what it says of flags and methods is what
the code says.
"""

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest

import memorization_suite.calibration.command
import memorization_suite.generation
import memorization_suite.generation.plan
import memorization_suite.localization.command
import memorization_suite.metrics.command
import memorization_suite.reporting.command
import memorization_suite.screening.command
import memorization_suite.screening.evaluate
import memorization_suite.sweeping.command
from memorization_suite.detection import detectors
from memorization_suite.download.assets import read_assets
from memorization_suite.generation.command import build_parser
from memorization_suite.mitigation import methods
from memorization_suite.mitigation.base import flags
from memorization_suite.pipelines.models import EMBEDDED
from memorization_suite.sweeping.plan import plan_sweep, read_sweep

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = [
    shlex.split(line, comments=True)[2:]
    for block in re.findall(r"```sh\n(.*?)```", README, re.S)
    for line in block.splitlines()
    if line.startswith("python generate_images.py")
]

METRIC_COMMANDS = [
    shlex.split(line, comments=True)[1:]
    for block in re.findall(r"```sh\n(.*?)```", README, re.S)
    for line in block.splitlines()
    if line.startswith("python metrics/")
]

OTHER_COMMANDS = [
    shlex.split(line, comments=True)[1:]
    for block in re.findall(r"```sh\n(.*?)```", README, re.S)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith(
        (
            "python detect_memorization.py",
            "python calibrate.py",
            "python localize_neurons.py",
            "python make_report.py",
            "python sweep.py",
        )
    )
]


def metric_parser(path: str):
    """The parser of metrics/NAME.py."""
    script = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    return (
        script.build_parser()
        if hasattr(script, "build_parser")
        else memorization_suite.metrics.command.build_parser(script.SCRIPT)
    )


def test_there_are_commands_for_both_kinds_of_models():
    assert (
        sum("tiny" in argv for argv in COMMANDS) >= 3
        and sum("tiny" not in argv for argv in COMMANDS) >= 4
    )


@pytest.mark.parametrize("argv", [argv for argv in COMMANDS if "tiny" in argv], ids=" ".join)
@pytest.mark.skipif(
    not EMBEDDED["tiny"].is_dir(), reason="the weights of tiny are not in this checkout"
)
def test_commands_of_the_embedded_model_are_planned(argv):
    plan = memorization_suite.generation.plan_of(argv)
    assert plan.settings.image_length == 32 and len(plan.prompts) >= 60


@pytest.mark.parametrize("argv", [argv for argv in COMMANDS if "tiny" not in argv], ids=" ".join)
def test_official_commands_say_what_is_missing(argv, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        memorization_suite.generation.plan,
        "OFFICIAL_PROMPTS",
        memorization_suite.generation.plan.ROOT / "prompts" / "not_here.csv",
    )
    assert memorization_suite.generation.main([*argv, "--output_path", str(tmp_path)]) == 2
    message = capsys.readouterr().err.strip()
    assert (
        len(message.splitlines()) == 1 and "--model_id tiny" in message and "download/" in message
    )


def test_the_table_names_every_method_and_its_flags():
    for name, method in methods().items():
        line = next(line for line in README.splitlines() if line.startswith(f"| `{name}` |"))
        assert all(f"--{option.name}" in line for option in flags(method)), line


def test_every_flag_named_is_one():
    parsers = [
        build_parser(),
        *(metric_parser(path) for path in {argv[0] for argv in METRIC_COMMANDS}),
        memorization_suite.screening.command.build_parser(),
        memorization_suite.screening.evaluate.build_parser(),
        *subparsers(memorization_suite.calibration.command.build_parser()),
        *subparsers(memorization_suite.localization.command.build_parser()),
        memorization_suite.reporting.command.build_parser(),
        memorization_suite.sweeping.command.build_parser(),
    ]
    known = {option for parser in parsers for option in parser._option_string_actions}
    named = set(re.findall(r"`?(--[a-z_0-9]+)", README))
    assert named <= known, named - known


def subparsers(parser):
    """The parsers of its subcommands."""
    (action,) = (
        action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    )
    return action.choices.values()


@pytest.mark.parametrize("argv", OTHER_COMMANDS, ids=" ".join)
def test_other_commands_are_understood(argv):
    script, *rest = argv
    if script == "detect_memorization.py" and rest[0] in ("evaluate", "spectrum", "tokens"):
        parser, rest = (
            importlib.import_module(f"memorization_suite.screening.{rest[0]}").build_parser(),
            rest[1:],
        )
    else:
        parser = {
            "detect_memorization.py": memorization_suite.screening,
            "calibrate.py": memorization_suite.calibration,
            "localize_neurons.py": memorization_suite.localization,
            "make_report.py": memorization_suite.reporting,
            "sweep.py": memorization_suite.sweeping,
        }[script].command.build_parser()
    if script == "sweep.py":
        _, more = parser.parse_known_args(rest)
        assert build_parser().parse_args(more)
    else:
        assert parser.parse_args(rest)


def test_sweep_files_are_sweeps(tmp_path):
    (tmp_path / "readme.toml").write_text(re.search(r"```toml\n(.*?)```", README, re.S)[1])
    assert len(read_sweep(tmp_path / "readme.toml")) == 6
    assert len(plan_sweep(ROOT / "sweeps" / "example.toml", tmp_path, [])) == 11


def test_the_table_names_every_detector():
    assert {name for name in detectors() if f"\n| `{name}` |" in README} == set(detectors())


def test_sweeps_exist_and_name_known_methods_and_flags():
    for path in (ROOT / "sweeps").glob("*.sh"):
        text = path.read_text()
        known = {f"--{option.name}" for method in methods().values() for option in flags(method)}
        used = re.findall(r"^(?:for .*)?(?:generate --method|each) (\w+) (--\w+)?", text, re.M)
        assert all(
            method in methods() and (not option or option in known) for method, option in used
        ), path
        assert (
            path.name == "common.sh"
            or '. "$(dirname "$0")/common.sh"' in text
            and f"{path.name}" in README
        )


@pytest.mark.parametrize("target", ["setup", "demo", "test", "lint", "train-tiny"])
def test_make_targets_exist(target):
    assert f"\n{target}:" in (ROOT / "Makefile").read_text()


def test_local_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links and all((ROOT / link).exists() for link in links), links


@pytest.mark.parametrize("argv", METRIC_COMMANDS, ids=" ".join)
def test_metric_commands_are_understood(argv):
    assert metric_parser(argv[0]).parse_args([arg for arg in argv[1:] if arg != "..."])


def test_every_metric_script_is_in_the_readme_and_its_checkpoints_are_assets():
    scripts = {path.name for path in (ROOT / "metrics").glob("compute_*.py")} | {
        "summarize.py",
        "plot_tradeoff.py",
    }
    assert {Path(argv[0]).name for argv in METRIC_COMMANDS} == scripts
    table = README.split("| quantity |")[1].split("\n\n")[0]
    named = {
        name
        for line in table.splitlines()[2:]
        for name in re.findall(r"`(\w+)`", line.split("|")[-2])
    }
    assert len(named) >= 6 and named <= set(read_assets())
