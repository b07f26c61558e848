"""What the documents tell people to type is understood; flags, files and headings that they name
are there. tests/test_document_commands.py runs the commands, tests/test_documents.py compares the
generated parts.
"""

import argparse
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
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
from memorization_suite.commands import (
    distances,
    fetch,
    neurons,
    score_scripts,
    summarize,
    tradeoff,
)
from memorization_suite.commands import generate_plan as generation
from memorization_suite.commands.sweeps.file import read_sweep
from memorization_suite.commands.sweeps.sweep import plan_sweep
from memorization_suite.experiments import cost, gpu_check
from memorization_suite.metrics.base import METRICS
from memorization_suite.metrics.scripts import CHANGE, COPIES, PREFERENCE
from memorization_suite.tiny import train
from tests.documents import ROOT, Block, documents, read_document

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = {path.relative_to(ROOT).as_posix(): path for path in documents()}
EVERY_DOCUMENT = pytest.mark.parametrize("name", DOCUMENTS)
SWEEPS = sorted((ROOT / "experiments" / "sweeps").glob("*.toml"))
WITH_WEIGHTS = pytest.mark.skipif(
    not tiny.MODELS["tiny"].is_dir(), reason="the weights of tiny are not in this checkout"
)
# Files that another command of the document makes.
MADE = (".py", ".csv", ".txt", ".json", ".jsonl")
# Of other programs: the scripts of Ren et al. and of Asthana and Belagiannis.
FOREIGN_FLAGS = {"--c1", "--hvp_sampling_num", "--mode"}


# --- what is typed ---


@cache
def text_of(name: str) -> str:
    """A document."""
    return DOCUMENTS[name].read_text(encoding="utf-8")


def prose_of(path: Path) -> str:
    """A document without its blocks."""
    return re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.S | re.M)


def blocks_in(name: str, language: str) -> list[Block]:
    """The blocks of a document in a language."""
    return [block for block in read_document(DOCUMENTS[name]) if block.language == language]


def mentioned_in(name: str) -> Iterator[list[str]]:
    """[script, argument, ...] of every `python SCRIPT.py ...` in the sentences."""
    for line in re.findall(r"`(python [^`]+)`", prose_of(DOCUMENTS[name])):
        if "..." not in line:
            yield from scripts_in(" ".join(line.split()))


def typed_in(name: str) -> Iterator[list[str]]:
    """The same of the shell blocks."""
    for block in read_document(DOCUMENTS[name]):
        if block.is_shell:
            for command in block.commands:
                for line in command.text.replace("\\\n", " ").splitlines():
                    yield from scripts_in(line)


def scripts_in(line: str) -> Iterator[list[str]]:
    """The same of a line: up to a semicolon, a pipe or a redirection."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&<>")
    lexer.whitespace_split = True
    words = list(lexer)
    for position, word in enumerate(words[:-1]):
        if word == "python" and words[position + 1].endswith(".py"):
            rest = words[position + 1 :]
            ends = [at for at, word in enumerate(rest) if re.fullmatch("[;|&<>]+", word)]
            yield rest[: ends[0]] if ends else rest


COMMANDS = [argv for name in DOCUMENTS for argv in typed_in(name)]
# But for those of the recipes' plugins, which tests/test_contributing.py runs.
MENTIONED = [argv for name in DOCUMENTS if name != "CONTRIBUTING.md" for argv in mentioned_in(name)]
GENERATION = [argv[1:] for argv in COMMANDS if argv[0] == "generate_images.py"]
OF_TINY = []
for argv in GENERATION:
    if "tiny" in argv and not any(word.endswith(MADE) for word in argv):
        OF_TINY.append(argv)
FETCHED = [argv for argv in GENERATION if any(word.startswith("models/") for word in argv)]
SCORES = {
    "metrics/compute_sscd_orig_clip_score.py": COPIES,
    "metrics/compute_lpips_imagereward.py": PREFERENCE,
    "metrics/compute_diversity.py": CHANGE,
}
FIXED = {
    "mitigation/nemo/localize_neurons.py": neurons,
    "make_report.py": make_report,
    "metrics/compute_fid.py": distances,
    "metrics/summarize.py": summarize,
    "metrics/plot_tradeoff.py": tradeoff,
    "download/fetch.py": fetch,
}
GROWING = {
    "generate_images.py": generate_images,
    "detect_memorization.py": detect_memorization,
    "sweep.py": sweep,
}
DOORS = {*SCORES, *FIXED, *GROWING}


def parser_of(argv: list[str]):
    """(the parser of a command, the arguments that are left for it)."""
    script, *rest = argv
    if script in SCORES:
        return score_scripts.build_parser(SCORES[script], rest), rest
    if script in FIXED:
        return FIXED[script].build_parser(), rest
    if script == "detect_memorization.py" and rest and rest[0] in detect_memorization.SUBCOMMANDS:
        return detect_memorization.build_subparser(rest[0]), rest[1:]
    return GROWING[script].build_parser(rest), rest


def without_plugins(argv: list[str]) -> list[str]:
    """The plugins are files that other blocks write."""
    if "--plugin" not in argv:
        return argv
    at = argv.index("--plugin")
    return without_plugins(argv[:at] + argv[at + 2 :])


@pytest.mark.parametrize("argv", [*COMMANDS, *MENTIONED], ids=" ".join)
def test_commands_are_understood(argv):
    assert (ROOT / argv[0]).is_file()
    if argv[0] in DOORS:
        parser, rest = parser_of(without_plugins(argv))
        if "--plugin" not in argv:  # else its methods and flags are not known here
            assert parser.parse_args(rest)


def test_the_readme_has_commands_for_both_kinds_of_models():
    assert sum("tiny" in argv for argv in typed_in("README.md")) >= 3
    assert sum("models/sd14" in argv for argv in typed_in("README.md")) >= 3


@pytest.mark.parametrize("argv", OF_TINY, ids=" ".join)
@WITH_WEIGHTS
def test_commands_of_the_embedded_model_are_planned(argv):
    typed = generate_images.build_parser(argv).typed(argv)
    if not typed.pop("list_methods", False):
        planned = generation.plan(**typed)
        assert planned.settings.image_length == tiny.pixels() and len(planned.prompts) >= 60


@pytest.mark.parametrize("argv", FETCHED, ids=" ".join)
def test_commands_of_a_fetched_model_say_what_is_missing(argv, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(generation, "OFFICIAL_PROMPTS", ROOT / "prompts" / "not_here.csv")
    assert generate_images.main([*argv, "--output_path", str(tmp_path)]) == 2
    message = capsys.readouterr().err.strip()
    assert len(message.splitlines()) == 1
    assert "python download/fetch.py sd14" in message


@WITH_WEIGHTS
def test_no_run_of_the_readme_meets_one_of_another_model(monkeypatch, tmp_path):
    """Typed one after the other, as they stand there."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red lantern\n" * 10, encoding="utf-8")
    monkeypatch.setattr(generation, "OFFICIAL_PROMPTS", prompts)
    monkeypatch.setattr(generation, "check_model", lambda *given: None)  # not fetched yet
    monkeypatch.setattr(generation, "sized", lambda settings: settings)
    models: dict[Path, str] = {}
    for script, *argv in typed_in("README.md"):
        if script == "generate_images.py":
            planned = generation.plan(**generate_images.build_parser(argv).typed(argv))
            model = planned.settings.model_id
            assert models.setdefault(planned.folder, model) == model, argv


@WITH_WEIGHTS
def test_the_notebook_cell_runs(tmp_path, monkeypatch):
    """Five lines that plan, generate, score and show a run, as the README prints them."""
    cells = [block.text for block in blocks_in("README.md", "python")]
    (cell,) = [cell for cell in cells if "suite.plan(" in cell]
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


@EVERY_DOCUMENT
def test_make_targets_exist(name):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    shell = "\n".join(block.text for block in read_document(DOCUMENTS[name]) if block.is_shell)
    targets = re.findall(r"^\s*make ([a-z-]+)", shell, re.M)
    targets += re.findall(r"`make ([a-z-]+)", text_of(name))
    for target in targets:
        assert f"\n{target}:" in makefile, target


# --- what is named ---


def subparsers(parser) -> list:
    """The parsers of its subcommands, and theirs."""
    inner = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                inner += [each, *subparsers(each)]
    return inner


@cache
def known_flags() -> set[str]:
    """Those of every command, with every metric, and of the documents' plugins."""
    commands = [[door] for door in DOORS]
    commands += [["detect_memorization.py", name] for name in detect_memorization.SUBCOMMANDS]
    commands += [[script, "--metrics", *METRICS] for script in SCORES]
    flags = set(FOREIGN_FLAGS)
    for argv in commands:
        parser, _ = parser_of(argv)
        for each in [parser, *subparsers(parser)]:
            flags.update(each._option_string_actions)
    for parser in (cost.flags(), gpu_check.build_parser(), train.build_parser()):
        flags.update(parser._option_string_actions)
    for name in DOCUMENTS:
        for block in blocks_in(name, "python"):
            fields = re.findall(r"^    (\w+): .* = flag\(", block.text, re.M)
            flags.update(f"--{field}" for field in fields)
    return flags


@EVERY_DOCUMENT
def test_every_flag_named_is_one(name):
    named = set(re.findall(r"(?<![\w-])(--[a-z][\w-]*)", text_of(name)))
    assert named <= known_flags(), named - known_flags()


def slug(heading: str) -> str:
    """The anchor that a heading gets."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.strip().lower())
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


@EVERY_DOCUMENT
def test_links_lead_somewhere(name):
    path = DOCUMENTS[name]
    for link in re.findall(r"\]\(([^)\s]+)\)", prose_of(path)):
        if "://" in link:
            continue
        place, _, anchor = link.partition("#")
        target = (path.parent / place).resolve() if place else path
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", prose_of(target), re.M)
            assert anchor in map(slug, headings), link


def test_the_readme_is_read_in_minutes():
    """Without the tables that are generated."""
    own = re.sub(r"^<!-- generated:.*?^<!-- end -->\n", "", README, flags=re.S | re.M)
    assert len(own.splitlines()) <= 130
    assert max(map(len, README.splitlines())) <= 160


def test_every_document_is_reached_from_the_readme():
    links = {link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", README)}
    for name in DOCUMENTS:
        assert name == "README.md" or name in links, name


def test_every_metric_script_is_in_the_metrics_document():
    scripts = {path.name for path in (ROOT / "metrics").glob("compute_*.py")}
    scripts |= {"summarize.py", "plot_tradeoff.py"}
    typed = {Path(argv[0]).name for argv in typed_in("metrics/README.md")}
    assert scripts <= typed, scripts - typed


# --- sweeps ---


def base_name(path: Path) -> str:
    """A sweep's name without the family of models that its values are for."""
    return path.stem.removesuffix("_sd1").removesuffix("_sd2")


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_is_named_in_a_document(path):
    """In a paragraph that says where they lie."""
    name = base_name(path)
    paragraphs = [
        paragraph
        for document in DOCUMENTS
        for paragraph in text_of(document).split("\n\n")
        if "experiments/sweeps/" in paragraph
    ]
    assert any(re.search(rf"\b{name}\b", paragraph) for paragraph in paragraphs)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
@WITH_WEIGHTS
def test_every_sweep_is_planned(path, tmp_path):
    """On an embedded model; the values of a family of models stand in a file of that family."""
    model = "tiny-v" if path.stem.endswith("_sd2") else "tiny"
    runs = read_sweep(path)
    assert len(plan_sweep(path, tmp_path, model_id=model)) == len(runs)
    name = base_name(path)
    assert name == "example" or runs[0].settings["method"] == "no_mitigation"


def test_sweep_files_in_the_documents_are_sweeps(tmp_path):
    blocks = [block for name in DOCUMENTS for block in blocks_in(name, "toml")]
    sweeps = [block for block in blocks if "run" in tomllib.loads(block.text)]
    assert sweeps
    for number, block in enumerate(sweeps):
        file = tmp_path / f"{number}.toml"
        file.write_text(block.text, encoding="utf-8")
        assert read_sweep(file)


def test_the_shell_sweep_makes_the_runs_of_the_files():
    """The loops' values are those of the sweep files, and bash understands them."""
    script = ROOT / "examples" / "sweep.sh"
    loops = re.findall(r"for (\w+) in ([\d. ]+); do generate", script.read_text())
    values = {name: {float(value) for value in text.split()} for name, text in loops}
    for loop, flag in (("rho", "rho"), ("gamma", "gamma"), ("target", "target_loss")):
        runs = read_sweep(ROOT / "experiments" / "sweeps" / f"{flag}.toml")
        assert values[loop] == {run.settings[flag] for run in runs if flag in run.settings}
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
