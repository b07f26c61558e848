"""What the README tells people to type is understood, and what it says of flags and methods is what
the code says.
"""

import argparse
import re
import shlex
import subprocess
from pathlib import Path

import pytest

import memorization_suite
from memorization_suite import (
    detect_memorization,
    generate_images,
    make_report,
    sweep,
    tiny,
)
from memorization_suite.commands import distances, fetch, neurons, score, summarize, tradeoff
from memorization_suite.commands import generate_plan as generation
from memorization_suite.commands.sweep import plan_sweep
from memorization_suite.commands.sweep_file import read_sweep
from memorization_suite.detection import DETECTORS
from memorization_suite.download.assets import read_assets
from memorization_suite.mitigation import METHODS
from memorization_suite.mitigation.base import flags

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.S)
COMMANDS = [
    shlex.split(line, comments=True)[1:]
    for block in re.findall(r"```sh\n(.*?)```", README, re.S)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("python ") and not line.startswith(("python -m", "python examples/"))
]
GENERATION = [argv[1:] for argv in COMMANDS if argv[0] == "generate_images.py"]
METRICS = [argv for argv in COMMANDS if argv[0].startswith("metrics/")]
WITH_WEIGHTS = pytest.mark.skipif(
    not tiny.MODELS["tiny"].is_dir(), reason="the weights of tiny are not in this checkout"
)


def parser_of(argv: list[str]):
    """(the parser of a command, the arguments that are left for it)."""
    script, *rest = argv
    plain = {
        "mitigation/nemo/localize_neurons.py": neurons,
        "make_report.py": make_report,
        "metrics/compute_fid.py": distances,
        "metrics/summarize.py": summarize,
        "metrics/plot_tradeoff.py": tradeoff,
        "download/fetch.py": fetch,
    }
    scripts = {
        "metrics/compute_sscd_orig_clip_score.py": score.COPIES,
        "metrics/compute_lpips_imagereward.py": score.PREFERENCE,
        "metrics/compute_diversity.py": score.CHANGE,
    }
    if script in scripts:
        return score.build_parser(scripts[script], rest), rest
    if script in plain:
        return plain[script].build_parser(), rest
    if script == "detect_memorization.py" and rest[0] in detect_memorization.SUBCOMMANDS:
        return detect_memorization.build_subparser(rest[0]), rest[1:]
    door = {
        "generate_images.py": generate_images,
        "detect_memorization.py": detect_memorization,
        "sweep.py": sweep,
    }[script]
    return door.build_parser(rest), rest


def test_there_are_commands_for_both_kinds_of_models():
    assert sum("tiny" in argv for argv in GENERATION) >= 3
    assert sum("tiny" not in argv for argv in GENERATION) >= 4


@pytest.mark.parametrize("argv", [argv for argv in GENERATION if "tiny" in argv], ids=" ".join)
@WITH_WEIGHTS
def test_commands_of_the_embedded_model_are_planned(argv):
    planned = generation.plan(**generate_images.build_parser(argv).typed(argv))
    assert planned.settings.image_length == 32 and len(planned.prompts) >= 60


@pytest.mark.parametrize("argv", [argv for argv in GENERATION if "tiny" not in argv], ids=" ".join)
def test_official_commands_say_what_is_missing(argv, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(generation, "OFFICIAL_PROMPTS", ROOT / "prompts" / "not_here.csv")
    assert generate_images.main([*argv, "--output_path", str(tmp_path)]) == 2
    message = capsys.readouterr().err.strip()
    assert len(message.splitlines()) == 1
    assert "--model_id tiny" in message and "download/" in message


@WITH_WEIGHTS
def test_the_notebook_cell_runs(tmp_path, monkeypatch):
    """Five lines that plan, generate, score and show a run, as the README prints them."""
    (cell,) = [block for block in PYTHON if "suite.plan(" in block]
    lines = [line for line in cell.splitlines() if line and not line.startswith("import ")]
    assert len(lines) <= 5
    monkeypatch.chdir(tmp_path)
    *work, show = cell.rstrip().splitlines()
    names: dict = {}
    exec("\n".join(work), names)
    sheet = eval(show, names)
    assert names["run"].path.is_dir() and len(names["run"].made) == 4
    assert sheet.size[0] > sheet.size[1] > 0
    assert memorization_suite.plan is generation.plan


def test_the_table_names_every_method_and_its_flags():
    for name, method in METHODS.items():
        line = next(line for line in README.splitlines() if line.startswith(f"| `{name}` |"))
        assert all(f"--{option.name}" in line for option in flags(method)), line


def test_every_flag_named_is_one():
    commands = [*COMMANDS, ["download/fetch.py"]]
    parsers = [parser_of(argv)[0] for argv in commands]
    parsers += [inner for parser in parsers for inner in subparsers(parser)]
    known = {option for parser in parsers for option in parser._option_string_actions}
    named = set(re.findall(r"`?(--[a-z_0-9]+)", README))
    assert named <= known, named - known


def subparsers(parser):
    """The parsers of its subcommands."""
    return [
        inner
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for inner in action.choices.values()
    ]


@pytest.mark.parametrize("argv", COMMANDS, ids=" ".join)
def test_commands_are_understood(argv):
    parser, rest = parser_of(argv)
    assert parser.parse_args([word for word in rest if word != "..."])


def test_sweep_files_are_sweeps(tmp_path):
    (tmp_path / "readme.toml").write_text(re.search(r"```toml\n(.*?)```", README, re.S)[1])
    assert len(read_sweep(tmp_path / "readme.toml")) == 6
    assert len(plan_sweep(ROOT / "experiments" / "sweeps" / "example.toml", tmp_path)) == 11


def test_the_table_names_every_detector():
    assert {name for name in DETECTORS if f"\n| `{name}` |" in README} == set(DETECTORS)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "experiments" / "sweeps").glob("*.toml")), ids=lambda path: path.stem
)
@WITH_WEIGHTS
def test_every_sweep_is_planned(path, tmp_path):
    """On an embedded model; the values of a family of models stand in a file of that family."""
    name = path.stem.removesuffix("_sd1").removesuffix("_sd2")
    assert f"experiments/sweeps/{name}.toml" in README or re.search(rf"# also .*\b{name}\b", README)
    model = "tiny-v" if path.stem.endswith("_sd2") else "tiny"
    runs = read_sweep(path)
    assert len(plan_sweep(path, tmp_path, model_id=model)) == len(runs)
    assert name == "example" or runs[0].settings["method"] == "no_mitigation"


def test_the_shell_sweep_makes_the_runs_of_the_files():
    """The loops' values are those of the sweep files, and bash understands them."""
    script = ROOT / "examples" / "sweep.sh"
    loops = re.findall(r"for (\w+) in ([\d. ]+); do generate", script.read_text())
    values = {name: {float(value) for value in text.split()} for name, text in loops}
    for loop, flag in (("rho", "rho"), ("gamma", "gamma"), ("target", "target_loss")):
        runs = read_sweep(ROOT / "experiments" / "sweeps" / f"{flag}.toml")
        assert values[loop] == {run.settings[flag] for run in runs if flag in run.settings}
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0


@pytest.mark.parametrize("target", ["setup", "demo", "test", "lint", "train-tiny"])
def test_make_targets_exist(target):
    assert f"\n{target}:" in (ROOT / "Makefile").read_text()


def test_local_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links and all((ROOT / link).exists() for link in links), links


def test_every_metric_script_is_in_the_readme_and_its_checkpoints_are_assets():
    scripts = {path.name for path in (ROOT / "metrics").glob("compute_*.py")} | {
        "summarize.py",
        "plot_tradeoff.py",
    }
    assert {Path(argv[0]).name for argv in METRICS} == scripts
    table = README.split("| quantity |")[1].split("\n\n")[0]
    named = {
        name
        for line in table.splitlines()[2:]
        for name in re.findall(r"`(\w+)`", line.split("|")[-2])
    }
    assert len(named) >= 6 and named <= set(read_assets())
