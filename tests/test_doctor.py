"""`make doctor`: each line's mark, what it rests on, and the exit code."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from memorization_suite import ROOT, tiny
from memorization_suite.commands import doctor
from memorization_suite.commands import main as commands
from memorization_suite.commands.doctor import Finding
from memorization_suite.commands.setup import REQUIREMENTS, read_pins
from memorization_suite.download.assets import our_assets
from memorization_suite.metrics.base import METRICS

MARKS = ("ok", "missing", "broken", "differs")
LINE = re.compile(rf"({'|'.join(MARKS)}) +(\S.*?)  +(\S.*)")


def lines_of(text: str) -> dict[str, tuple[str, str]]:
    """Second column -> (mark, text) of what the command prints, whose last line is its verdict."""
    found = {}
    begins = set()
    for line in text.split("\n\n")[0].splitlines():
        mark, what, told = LINE.fullmatch(line).groups()
        found[what] = (mark, told)
        begins.add((line.index(what, 7), line.rindex(told)))
    assert len(begins) == 1  # the columns are aligned
    return found


def by_name(findings) -> dict[str, Finding]:
    return {finding.what: finding for finding in findings}


def start(*flags: str, cwd: Path, path: str = "") -> subprocess.CompletedProcess:
    """A Python process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, *flags, "-m", "memorization_suite", "doctor"]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env=environment | {"PYTHONPATH": path}
    )


# --- as a whole


def test_where_all_is_there_it_returns_0(capsys):
    assert commands.main(["doctor"]) == 0
    text = capsys.readouterr().out
    found = lines_of(text)
    assert found["tiny"][0] == found["torch"][0] == found["Python"][0] == found["device"][0] == "ok"
    assert text.endswith("\nThe suite can run on the embedded models: make demo\n")
    assert {*our_assets(), *doctor.PROGRAMS} <= set(found)


def test_on_a_bare_python_it_says_what_is_missing():
    done = start("-S", cwd=ROOT)
    assert done.returncode == 1 and done.stderr == ""
    found = lines_of(done.stdout)
    mark, told = found["packages"]
    assert mark == "missing" and told.endswith("; make setup")
    for name in read_pins(REQUIREMENTS):
        assert f" {name}" in told
    assert found["torch"] == ("missing", "make setup")
    assert found["tiny"][0] == "ok" and set(our_assets()) <= set(found)
    assert found["development"][1].endswith("; optional: make test and make lint install them")
    assert "cannot run yet: see packages, torch above" in done.stdout


def test_an_installed_package_has_the_doctor_too(tmp_path):
    """Laid out as the wheel is."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]
    for source, place in build["build"]["targets"]["wheel"]["hooks"]["custom"]["rooms"].items():
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / source, tmp_path / place)
    done = start("-S", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr == ""
    found = lines_of(done.stdout)
    assert found["tiny"][0] == "ok" and found["packages"][0] == "missing"
    assert f"pip install -r {tmp_path}/memorization_suite/requirements.txt" in found["packages"][1]
    assert "python -m memorization_suite.download.fetch sd14" in found["sd14"][1]
    assert "development" not in found and "make setup" not in done.stdout


def test_a_wrong_flag_is_one_line(capsys):
    with pytest.raises(SystemExit) as stopped:
        commands.main(["doctor", "--plugn", "x.py"])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "did you mean --plugin?" in error


# --- packages


def test_a_package_of_another_version_differs(monkeypatch):
    pins = read_pins(REQUIREMENTS)
    monkeypatch.setattr(doctor, "version", (pins | {"tqdm": "1.0", "torch": "2.14.1+cpu"}).get)
    finding = doctor.packages("packages", REQUIREMENTS, "make setup", stops=True)
    assert (finding.mark, finding.stops) == ("differs", False)
    assert f"tqdm 1.0 (pinned {pins['tqdm']})" in finding.text and "torch" not in finding.text


def test_a_package_that_is_missing_stops(monkeypatch):
    def version(name: str) -> str:
        if name == "lpips":
            raise doctor.PackageNotFoundError(name)
        return "0" if name == "tqdm" else read_pins(REQUIREMENTS)[name]

    monkeypatch.setattr(doctor, "version", version)
    finding = doctor.packages("packages", REQUIREMENTS, "make setup", stops=True)
    assert (finding.mark, finding.stops) == ("missing", True)
    assert "not installed: lpips; of another version: tqdm 0 (" in finding.text


# --- torch and the device


def torch_with(*cards: tuple[str, int], cuda: str | None = "13.0") -> SimpleNamespace:
    """A stand-in for torch that sees these cards: name, GB."""

    def properties(index: int) -> SimpleNamespace:
        name, memory = cards[index]
        return SimpleNamespace(name=name, total_memory=memory * 2**30)

    seen = SimpleNamespace(
        is_available=lambda: bool(cards),
        device_count=lambda: len(cards),
        get_device_properties=properties,
    )
    mps = SimpleNamespace(is_available=lambda: False)
    return SimpleNamespace(
        __version__="2.14.1",
        __spec__=SimpleNamespace(name="torch"),
        version=SimpleNamespace(cuda=cuda, hip=None),
        cuda=seen,
        backends=SimpleNamespace(mps=mps),
    )


def test_a_gpu_has_its_name_and_memory(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", torch_with(("Card A", 80), ("Card B", 24)))
    found = by_name(doctor.torch_and_device())
    assert found["torch"].text == "2.14.1, CUDA 13.0 build"
    assert found["device"].text == "cuda:0 Card A, 80.0 GB; cuda:1 Card B, 24.0 GB"


def test_a_gpu_that_torch_does_not_see_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", torch_with(cuda=None))
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/bin/{name}")
    found = by_name(doctor.torch_and_device())
    assert found["GPU"].mark == "missing" and "torch sees none" in found["GPU"].text
    assert "CPU build" in found["GPU"].text
    assert re.fullmatch(r"no GPU; \d+ CPU cores(, .* of memory)?", found["device"].text)
    assert not any(finding.stops for finding in found.values())


def test_a_torch_that_cannot_be_imported_stops(monkeypatch):
    def broken(name: str):
        raise OSError("libcudart.so.13: cannot open shared object file\nmore")

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    (finding,) = doctor.torch_and_device()
    assert (finding.mark, finding.stops) == ("broken", True)
    assert "libcudart" in finding.text and "more" not in finding.text
    assert f"--force-reinstall --no-deps torch=={read_pins(REQUIREMENTS)['torch']} " in finding.text


# --- the embedded models


def test_a_damaged_embedded_model_stops(monkeypatch, tmp_path, capsys):
    copy = shutil.copytree(tiny.MODELS["tiny"], tmp_path / "tiny")
    monkeypatch.setitem(tiny.MODELS, "tiny", copy)
    assert by_name(doctor.embedded())["tiny"].mark == "ok"
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    for content in (
        weights.read_bytes()[:-1],
        b"version https://git-lfs.github.com/spec/v1\n",
        b"",
    ):
        weights.write_bytes(content)
        finding = by_name(doctor.embedded())["tiny"]
        assert (finding.mark, finding.stops) == ("broken", True)
        fault = "a pointer of Git LFS" if b"git-lfs" in content else "no whole safetensors file"
        assert f"{weights} is {fault}" in finding.text
        assert finding.text.endswith("; git checkout -- tiny")
    assert commands.main(["doctor"]) == 1
    assert "The suite cannot run yet: see tiny above." in capsys.readouterr().out
    shutil.rmtree(copy)
    assert by_name(doctor.embedded())["tiny"].stops


def test_missing_prompts_of_an_embedded_model_stop(monkeypatch, tmp_path):
    monkeypatch.setattr(tiny, "prompts", lambda model, split: tmp_path / f"{model}_{split}.csv")
    finding = by_name(doctor.embedded())["tiny-v"]
    assert finding.stops and "tiny-v_memorized_test.csv is not there" in finding.text


# --- what is fetched


def test_every_metric_is_named_and_each_file_with_what_it_enables(tmp_path):
    found = by_name(doctor.fetched(tmp_path))
    assert [name for name in our_assets() if name not in found] == []
    texts = " ".join(finding.text for finding in found.values())
    for name in METRICS:
        assert re.search(rf"\b{name}\b", texts)
    for name in our_assets():
        finding = found[name]
        assert finding.mark == "missing" and not finding.stops
        assert finding.text.endswith(f": python download/fetch.py {name}")
    assert found["sscd_disc_mixup"].text.startswith("sscd, sscd_change, a part of clip: ")
    assert found["sscd_disc_large"].text.startswith("sscd --sscd sscd_disc_large, ")
    assert found["inception_v3"].text.startswith("metrics/compute_fid.py: ")


def test_a_file_that_is_there_has_its_path_and_a_torn_one_is_broken(tmp_path):
    asset = our_assets()["lpips_alexnet"]
    file = tmp_path / asset.path
    file.parent.mkdir(parents=True)
    with open(file, "wb") as opened:
        opened.truncate(asset.size)
    assert str(by_name(doctor.fetched(tmp_path))["lpips_alexnet"]).split() == [
        *("ok", "lpips_alexnet", "lpips:", str(file))
    ]
    file.write_bytes(b"version https://git-lfs")
    finding = by_name(doctor.fetched(tmp_path))["lpips_alexnet"]
    assert finding.mark == "broken" and "has 23 bytes, not 244,408,911" in finding.text
    assert finding.text.endswith("python download/fetch.py lpips_alexnet --overwrite")


def test_a_folder_without_one_of_its_files_is_broken(tmp_path):
    asset = our_assets()["sd14"]
    for name in asset.files:
        file = tmp_path / asset.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert by_name(doctor.fetched(tmp_path))["sd14"].mark == "ok"
    (tmp_path / "models/sd14/vae/config.json").unlink()
    finding = by_name(doctor.fetched(tmp_path))["sd14"]
    assert finding.mark == "broken"
    assert finding.text.startswith("there is no models/sd14/vae/config.json: ")


# --- what one can do without


def test_a_missing_program_says_what_it_is_for(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    found = by_name(doctor.optional())
    for name in doctor.PROGRAMS:
        assert found[name].mark == "missing" and found[name].text.startswith("optional: ")
        assert not found[name].stops


def test_the_columns_hold_every_name():
    assert max(map(len, our_assets())) <= doctor.WIDTH


def test_a_copy_of_the_suite_beside_the_packages_is_broken(tmp_path):
    assert doctor.suite(tmp_path).mark == "ok"
    (tmp_path / "memorization_suite").mkdir()
    (tmp_path / "memorization_suite" / "__init__.py").touch()
    finding = doctor.suite(tmp_path)
    assert finding.mark == "broken" and finding.stops and "make setup" in finding.text
