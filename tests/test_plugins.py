"""--plugin FILE.py: what a file outside the checkout registers works as the suite's own does."""

import functools
import json
import os
import subprocess
import sys

import pytest

import memorization_suite as suite
from memorization_suite import ROOT, detect_memorization, generate_images, make_report, sweep
from memorization_suite.detection import DETECTORS
from memorization_suite.mitigation import METHODS
from memorization_suite.pipelines import loading
from memorization_suite.runs.plugins import PLUGINS, load_plugin, plugins_of

MITIGATION = '''"""Scales the noise."""

from memorization_suite.mitigation.base import Adjustment, Mitigation, flag, register


@register("scaled_noise", paper="none", cost="2N")
class ScaledNoise(Mitigation):
    """The noise times a factor."""

    noise_factor: float = flag(0.5, "factor of the noise", above=0.0)

    def adjust_initial_noise(self, predictor, x, t, batch):
        return Adjustment(self.noise_factor * x)
'''
DETECTOR = '''"""The magnitude over a share of the steps."""

from memorization_suite.detection.base import register
from memorization_suite.detection.noise_norm import NoiseNormAll
from memorization_suite.runs.settings import flag


@register("early_norm", paper="none", cost="N")
class EarlyNorm(NoiseNormAll):
    """Its mean over the first steps."""

    step_share: float = flag(0.5, "share of the steps", above=0.0, at_most=1.0)

    def steps(self, total):
        return round(self.step_share * total)
'''
CLASH = MITIGATION.replace("scaled_noise", "batch_wise")
BROKEN = MITIGATION + "\n\nmissing_name\n"


@pytest.fixture
def plugin(registries, tmp_path):
    """plugin(name, source): the path of a file in a folder of its own."""

    def write(name: str, source: str) -> str:
        file = tmp_path / "elsewhere" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(source)
        return str(file)

    return write


@pytest.fixture(scope="module")
def load():
    """The loader with a memory: one model for all runs."""
    return functools.cache(loading.load_pipeline)


@pytest.fixture
def asked(random_sd_folder, load, tmp_path, monkeypatch) -> list[str]:
    """Flags of a small run, in the test's folder."""
    monkeypatch.setattr(loading, "load_pipeline", load)
    (tmp_path / "prompts.txt").write_text("the great wave\na green ring\n")
    flags = {
        "model_id": random_sd_folder,
        "prompts": str(tmp_path / "prompts.txt"),
        "image_length": "32",
        "n_samples_per_prompt": "1",
        "num_inference_steps": "4",
        "output_path": str(tmp_path / "runs"),
    }
    return [*(word for name, value in flags.items() for word in (f"--{name}", value)), "--quiet"]


def left(capsys, main, argv) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command that may leave by itself."""
    capsys.readouterr()
    try:
        code = main(argv)
    except SystemExit as leave:
        code = leave.code
    return code, *capsys.readouterr()


def read(folder, name: str) -> dict:
    """A JSON file of the one run below a folder."""
    (file,) = folder.rglob(name)
    return json.loads(file.read_text())


# --- what it is for ---


def test_a_mitigation_from_a_file(plugin, asked, tmp_path, capsys):
    file = plugin("my_noise.py", MITIGATION)
    argv = [*asked, "--plugin", file, "--method", "scaled_noise", "--noise_factor", "0.25"]
    assert generate_images.main(argv) == 0
    assert len(list((tmp_path / "runs").glob("scaled_noise/*noise_factor0.25*/img_*.png"))) == 2
    identity = read(tmp_path, "manifest.json")["identity"]
    assert identity["plugins"] == {"my_noise": PLUGINS["my_noise"].sha256[:16]}
    assert f" generate_images.py --plugin {file} " in read(tmp_path, "config.json")["command"]
    assert "plugin" not in read(tmp_path, "config.json")
    assert {path.name for path in (tmp_path / "elsewhere").iterdir()} == {"my_noise.py"}
    assert str(tmp_path / "elsewhere") not in sys.path


def test_a_detector_from_a_file(plugin, asked, tmp_path, capsys):
    file = plugin("my_norm.py", DETECTOR)
    argv = [*asked, f"--plugin={file}", "--detector", "early_norm,noise_norm"]
    assert detect_memorization.main([*argv, "--step_share", "1"]) == 0
    scored = tmp_path / "runs" / "early_norm"
    assert (scored / "scores.csv").exists()
    plugins = read(scored, "manifest.json")["identity"]["plugins"]
    assert plugins == plugins_of(DETECTORS["early_norm"])
    assert "plugins" not in read(tmp_path / "runs" / "noise_norm", "manifest.json")["identity"]
    assert f" --plugin {file} " in read(scored, "config.json")["command"]


def test_help_and_lists_show_it(plugin, capsys):
    argv = ["--plugin", plugin("my_noise.py", MITIGATION), "--method", "scaled_noise"]
    code, shown, _ = left(capsys, generate_images.main, [*argv, "--help"])
    assert code == 0 and "--noise_factor FLOAT  factor of the noise (default 0.5)" in shown
    assert "--noise_factor 0.5" in left(capsys, generate_images.main, [*argv, "--list_methods"])[1]
    argv = [f"--plugin={plugin('my_norm.py', DETECTOR)}", "--detector", "early_norm"]
    code, shown, _ = left(capsys, detect_memorization.main, [*argv, "--help"])
    assert code == 0 and "--step_share FLOAT" in shown and "--plugin FILE.py" in shown
    assert "early_norm" in left(capsys, detect_memorization.main, [*argv, "--list_detectors"])[1]


def test_it_is_combined_and_screened(plugin, asked, tmp_path):
    """Two plugins in one run; of what else is loaded the run remembers nothing."""
    noise, norm = plugin("my_noise.py", MITIGATION), plugin("my_norm.py", DETECTOR)
    other = plugin("other.py", MITIGATION.replace("scaled_noise", "other_noise"))
    argv = [*asked, "--plugin", noise, "--plugin", norm, "--plugin", other]
    method = "scaled_noise+cross_attention"
    assert generate_images.main([*argv, "--method", method, "--screen", "early_norm:0"]) == 0
    assert read(tmp_path, "manifest.json")["identity"]["plugins"].keys() == {"my_noise", "my_norm"}
    planned = suite.plan(**generate_images.build_parser(asked).typed(asked))
    assert "plugins" not in planned.identity


def test_a_sweep_uses_it_and_prints_it(plugin, asked, tmp_path, capsys):
    file = plugin("my_noise.py", MITIGATION)
    table = tmp_path / "a.toml"
    table.write_text('[[run]]\nmethod = "scaled_noise"\nnoise_factor = [0.5, 0.75]\n')
    flags = asked[: asked.index("--output_path")]
    argv = [str(table), *flags, "--plugin", file, "--output_path", str(tmp_path / "swept")]
    code, shown, _ = left(capsys, sweep.main, [*argv, "--dry_run"])
    assert code == 0 and shown.count(f"generate_images.py --plugin {file} ") == 2
    assert sweep.main([*argv, "--no_scores", "--quiet"]) == 0
    assert len(list((tmp_path / "swept").rglob("img_*.png"))) == 4


def test_from_python(plugin):
    loaded = suite.load_plugin(plugin("my_noise.py", MITIGATION))
    assert (loaded.name, METHODS["scaled_noise"].__module__) == ("my_noise", loaded.module)
    assert suite.build_mitigation("scaled_noise", noise_factor=2).noise_factor == 2.0


# --- a run goes on ---


@pytest.mark.parametrize(
    ("main", "name", "source", "chosen"),
    [
        (generate_images.main, "my_noise", MITIGATION, ("--method", "scaled_noise")),
        (detect_memorization.main, "my_norm", DETECTOR, ("--detector", "early_norm")),
    ],
    ids=["mitigation", "detector"],
)
def test_a_run_goes_on_only_with_the_same_file(
    plugin, registries, asked, capsys, main, name, source, chosen
):
    argv = [*asked, *chosen, "--plugin", plugin(f"{name}.py", source)]
    assert main(argv) == 0
    before = PLUGINS[name].sha256[:16]
    registries()
    assert main(argv) == 0
    registries()
    plugin(f"{name}.py", source + "# edited\n")
    code, _, error = left(capsys, main, argv)
    message = error.splitlines()[-1]
    now = PLUGINS[name].sha256[:16]
    assert code == 2
    assert f"{{'{name}': '{before}'}} there, {{'{name}': '{now}'}} now" in message
    assert "Give this one a place of its own with --output_path " in message
    assert message.endswith(", or --overwrite to start over.")
    assert main([*argv, "--overwrite"]) == 0


# --- faults ---


@pytest.mark.parametrize(
    ("name", "source", "told"),
    [
        ("clash.py", CLASH, "two methods are called 'batch_wise': memorization_suite.mitigation."),
        ("clash.py", CLASH, "{folder}/clash.py"),
        ("broken.py", BROKEN, "NameError in broken.py, line 16: name 'missing_name' is not"),
        ("syntax.py", "x = (", "SyntaxError: '(' was never closed (syntax.py, line 1)"),
        ("leaves.py", "import sys\n\nsys.exit('bye')\n", "SystemExit in leaves.py, line 3: bye"),
        ("empty.py", "x = 1\n", "{folder}/empty.py registers nothing"),
        ("notes.txt", "", "{folder}/notes.txt is no Python file"),
        ("missing.py", None, "cannot read the plugin {folder}/missing.py (No such file"),
    ],
)
def test_a_fault_is_a_line_and_nothing_stays(plugin, registries, capsys, name, source, told):
    file = plugin(name, source or "")
    folder = os.path.dirname(file)
    if source is None:
        os.unlink(file)
    before = {**METHODS.entries, **PLUGINS}
    for main in (generate_images.main, make_report.main):
        code, out, error = left(capsys, main, ["--plugin", file, "folder"])
        assert (code, out, error.count("\n")) == (2, "", 1), error
        assert told.format(folder=folder) in error and "Traceback" not in error
        assert {**METHODS.entries, **PLUGINS} == before
        assert not [module for module in sys.modules if module.startswith("plugin:")]


def test_a_mended_file_is_loaded(plugin):
    with pytest.raises(ValueError, match="missing_name"):
        load_plugin(plugin("my_noise.py", BROKEN))
    load_plugin(plugin("my_noise.py", MITIGATION))
    assert "scaled_noise" in METHODS


def test_a_file_is_loaded_once_and_a_name_means_one_file(plugin, tmp_path):
    file = plugin("my_noise.py", MITIGATION)
    assert load_plugin(file) is load_plugin(file)
    other = tmp_path / "my_noise.py"
    other.write_text(MITIGATION)
    assert load_plugin(other).file == load_plugin(file).file
    other.write_text(MITIGATION.replace("scaled_noise", "other_noise"))
    with pytest.raises(ValueError, match=rf"two plugins are called 'my_noise': {file} is loaded"):
        load_plugin(other)
    assert "other_noise" not in METHODS


# --- installed packages ---


def with_package(site, source: str, *argv: str) -> subprocess.CompletedProcess:
    """Python in a process where a package with an entry point is installed."""
    (site / "their_package").mkdir()
    (site / "their_package" / "__init__.py").write_text("")
    (site / "their_package" / "methods.py").write_text(source)
    facts = site / "their_package-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(
        "[memorization_suite.plugins]\ntheirs = their_package.methods\n"
    )
    path = os.pathsep.join(map(str, (site, ROOT)))
    return subprocess.run(
        [sys.executable, *argv],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )


def test_an_installed_package_offers_one(tmp_path):
    script = str(ROOT / "generate_images.py")
    done = with_package(tmp_path, MITIGATION, script, "--method", "scaled_noise", "--help")
    assert done.returncode == 0 and "--noise_factor FLOAT" in done.stdout, done.stderr


def test_a_package_is_remembered_by_its_content(tmp_path):
    code = """
from memorization_suite.mitigation import METHODS
from memorization_suite.runs.plugins import plugin_flags, plugins_of
import their_package.methods
print(*METHODS, plugins_of(METHODS["scaled_noise"]).keys(), plugin_flags())
"""
    done = with_package(tmp_path, MITIGATION, "-c", code)
    assert "scaled_noise" in done.stdout and "dict_keys(['theirs']) []" in done.stdout, done.stderr


@pytest.mark.parametrize("script", ["generate_images.py", "sweep.py"])
def test_a_faulty_package_is_named(tmp_path, script):
    done = with_package(tmp_path, CLASH, str(ROOT / script), "--help")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert "the plugin theirs of the installed package their-package" in done.stderr
    assert "line 6: two methods are called 'batch_wise'" in done.stderr
    assert "pip uninstall their-package" in done.stderr
