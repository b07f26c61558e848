"""--help and wrong arguments answer at once: no command imports a heavy library for them."""

import os
import subprocess
import sys

import pytest

from memorization_suite import ROOT

HEAVY = (
    "PIL",
    "accelerate",
    "cv2",
    "datasets",
    "diffusers",
    "huggingface_hub",
    "jinja2",
    "lpips",
    "matplotlib",
    "numpy",
    "open_clip",
    "pandas",
    "safetensors",
    "scipy",
    "sklearn",
    "torch",
    "torchvision",
    "transformers",
)
RUN = ("--gen_folder", "run")
DOORS = {  # command -> (what it needs, a flag with a slip, the flag that was meant)
    "generate_images.py": ((), "--modle_id", "--model_id"),
    "detect_memorization.py": ((), "--detctor", "--detector"),
    "detect_memorization.py evaluate": ((), "--mode_id", ""),
    "detect_memorization.py spectrum": ((), "--gropus", ""),
    "detect_memorization.py tokens": ((), "--seeed", "--seed"),
    "sweep.py": (("a.toml",), "--dry_rn", "--dry_run"),
    "make_report.py": (("run",), "--tilte", "--title"),
    "detect_memorization.py calibrate threshold": (("scores.csv",), "--fprr", "--fpr"),
    "detect_memorization.py calibrate stability": (
        ("--prompts", "a", "--out", "b"),
        "--seeed",
        "--seed",
    ),
    "mitigation/nemo/localize_neurons.py statistics": (
        ("--prompts", "a", "--out", "b"),
        "--seeed",
        "--seed",
    ),
    "mitigation/nemo/localize_neurons.py localize": (
        ("--prompts", "a", "--out", "b", "--statistics", "c"),
        "--seeed",
        "--seed",
    ),
    "mitigation/nemo/localize_neurons.py control": (
        ("--neurons", "a", "--out", "b"),
        "--seeed",
        "--seed",
    ),
    "metrics/compute_fid.py": ((*RUN, "--real_folder", "b"), "--devic", "--device"),
    "metrics/compute_lpips_imagereward.py": (RUN, "--devic", "--device"),
    "metrics/compute_sscd_orig_clip_score.py": (RUN, "--devic", "--device"),
    "metrics/compute_diversity.py": ((*RUN, "--unmitigated", "b"), "--devic", "--device"),
    "metrics/plot_tradeoff.py": (("run",), "--oat", "--out"),
    "metrics/summarize.py": (("run",), "--quantites", "--quantities"),
    "download/fetch.py": ((), "--lisst", "--list"),
}
GROUPS = ("detect_memorization.py calibrate", "mitigation/nemo/localize_neurons.py")
FORMER = ("calibrate.py", "localize_neurons.py")  # say in a line what to type now
SCRIPTS = [
    path
    for pattern in ("*.py", "metrics/*.py", "download/*.py", "mitigation/nemo/*.py")
    for path in ROOT.glob(pattern)
    if path.relative_to(ROOT).as_posix() not in FORMER
    and '__name__ == "__main__"' in path.read_text(encoding="utf-8")
]


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """started(command, *argv): the command in a process that ends when a heavy library is
    imported.
    """
    shadows = tmp_path_factory.mktemp("shadows")
    for name in HEAVY:
        (shadows / f"{name}.py").write_text(
            f"import os, sys\nprint('imported {name}', file=sys.stderr, flush=True)\nos._exit(99)\n"
        )

    def run(command: str, *argv: str) -> subprocess.CompletedProcess:
        script, *subcommand = command.split()
        return subprocess.run(
            [sys.executable, str(ROOT / script), *subcommand, *argv],
            capture_output=True,
            text=True,
            cwd=shadows,
            env=os.environ | {"PYTHONPATH": str(shadows)},
        )

    return run


def test_the_guard_sees_a_heavy_import(started, tmp_path):
    """A module that imports torch is caught, also where it would swallow an ImportError."""
    script = tmp_path / "heavy.py"
    script.write_text("try:\n    import torch.nn\nexcept Exception:\n    pass\n")
    done = started(str(script))
    assert done.returncode == 99 and done.stderr == "imported torch\n"


def test_every_command_is_looked_at():
    assert {path.relative_to(ROOT).as_posix() for path in SCRIPTS} == {
        command.split()[0] for command in DOORS
    }


@pytest.mark.parametrize("command", sorted({*DOORS, *GROUPS}))
def test_help_is_quick(started, command):
    done = started(command, "--help")
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert done.stdout.startswith("usage: ") and "--plugin FILE.py" in done.stdout


@pytest.mark.parametrize("command", FORMER)
def test_a_former_command_is_as_quick(started, command):
    done = started(command, "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: ")
    assert done.stderr.count("\n") == 1 and "now it is: python " in done.stderr


@pytest.mark.parametrize("command", DOORS)
def test_a_slip_is_told_in_a_line_and_what_was_meant(started, command):
    needed, slip, meant = DOORS[command]
    done = started(command, *needed, slip, "1")
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.count("\n") == 1 and f"unrecognized arguments: {slip}" in done.stderr
    if meant:
        assert f"did you mean {meant}?" in done.stderr


@pytest.mark.parametrize("command", DOORS)
def test_a_flag_that_is_like_no_other(started, command):
    needed, _, _ = DOORS[command]
    done = started(command, *needed, "--xyzzy_zzyzx")
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.count("\n") == 1 and "did you mean" not in done.stderr


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("--method", "per_smaple"), "Did you mean per_sample?"),
        (("--model_id", "tiny", "--method", "per_sample", "--rho", "5"), "does not take --rho"),
        (("--model_id", "tiny", "--seed", "-1"), "--seed -1 is out of range"),
        (("--model_id", "no such model"), "there is no model"),
        (("--model_id", "tiny", "--prompts", "nowhere.csv"), "cannot read the prompt file"),
        (("--model_id", "tiny", "--screen", "nose_norm:1"), "Did you mean noise_norm?"),
    ],
)
def test_wrong_values_of_generation_are_quick(started, argv, told):
    done = started("generate_images.py", *argv)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.count("\n") == 1 and told in done.stderr


def test_help_of_generation_fits_on_a_screen_and_shows_the_flags_of_the_method_that_was_typed(
    started,
):
    plain = started("generate_images.py", "--help").stdout
    assert plain.count("\n") <= 70
    assert "--target_loss FLOAT" not in plain and "--rho" not in plain
    for typed in (("--method", "per_sample"), ("--method=per_sample",), ("--per_sample",)):
        shown = started("generate_images.py", *typed, "--help").stdout
        assert "--target_loss FLOAT" in shown and "--rho" not in shown
    shown = started("generate_images.py", "--method", "per_sample+cross_attention", "--help").stdout
    assert "--target_loss FLOAT" in shown and "--bos_scale FLOAT" in shown


def test_lists_are_quick(started):
    done = started("generate_images.py", "--list_methods")
    assert done.returncode == 0 and "per_sample\n    paper: Han et al." in done.stdout
    done = started("detect_memorization.py", "--list_detectors")
    assert done.returncode == 0 and "noise_norm\n    paper: " in done.stdout


def test_readers_of_results_are_quick(started, tmp_path):
    """A threshold from finished scores, and a run folder that is none."""
    scores = tmp_path / "noise_norm" / "scores.csv"
    scores.parent.mkdir()
    rows = [f"nonmem,{k},x,0,{k / 10}\n" for k in range(100)]
    scores.write_text("set,prompt_index,prompt,sample_index,score\n" + "".join(rows))
    done = started(
        "detect_memorization.py calibrate threshold", str(scores.parent), "--fpr", "0.05"
    )
    assert done.returncode == 0 and done.stdout.endswith("--screen noise_norm:9.405\n"), done.stderr
    done = started("metrics/summarize.py", str(tmp_path / "nowhere"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
