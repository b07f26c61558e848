"""What the tests of generate_images.py share."""

import csv
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

from memorization_suite.commands.generate_plan import Plan, plan
from memorization_suite.generate_images import build_parser, main
from memorization_suite.runs.run_folder import Key

CAPTIONS = [
    "a red square above a blue circle",
    "the great wave",
    "two cats, in the style of an old master",
    "a green ring",
    "three red stars",
]
BATCH_WISE = ("--method", "adj_init_noise", "--batch_wise")
PER_SAMPLE = ("--method", "adj_init_noise", "--per_sample")
FEW_STEPS = (
    "--apply_cfg_step",
    "1",
)  # the official 4 needs more than the four steps of these tests
KEYS = [Key(prompt, sample) for prompt in range(5) for sample in range(2)]
VARIANTS = {
    "per_image": (),
    "official": ("--rng", "official", "--dtype", "fp32"),
    "batch_wise": (*BATCH_WISE, *FEW_STEPS),
}


def planned(argv: list[str]) -> Plan:
    """What a command line would do."""
    return plan(**build_parser(argv).typed(argv))


def images(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("img_*.png"))}


def names(keys) -> list[str]:
    return [f"img_{key}.png" for key in keys]


def rows(folder: Path, table: str = "images") -> list[dict[str, str]]:
    with open(folder / f"{table}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def copied(folder: Path, out: Path) -> Path:
    """A copy of a run folder below another output path."""
    return Path(shutil.copytree(folder, out / folder.parent.name / folder.name))


def leftovers(folder: Path) -> list[Path]:
    return [
        path
        for path in folder.rglob("*")
        if path.name.endswith(".part") or path.name == ".writable"
    ]


def change_byte(file: Path, place: int) -> None:
    """Changes one byte of a file; its size and time of change stay."""
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=times)


def said(capsys) -> str:
    """The one message of generate_images.py on stderr, among the model library's own lines."""
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("generate_images.py:")]
    assert len(lines) == 1 and "Traceback" not in error
    return lines[0]


def latents_of(folder: Path, name: str) -> torch.Tensor:
    files = sorted((folder / "latents").glob("*.safetensors"))
    return torch.stack([load_file(path)[name] for path in files])


def refused(capsys, argv, told="") -> None:
    """argv gives exit code 2 and one line on stderr, and says `told`."""
    try:
        code = main(argv)
    except SystemExit as leave:
        code = leave.code
    out, error = capsys.readouterr()
    assert code == 2, error
    assert error.count("\n") == 1 and error.endswith("\n") and "Traceback" not in error and not out
    assert told in error
