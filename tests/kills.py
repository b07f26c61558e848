"""Kills commands at random moments, gives them again and compares all that they leave.

python -m tests.kills [--kills 30] [--seed 0]

Generation, scoring, detection and a sweep on the embedded model: each is first run undisturbed,
then in a copy of the folder that it began with, where SIGKILL ends it and all its children. What
the same command leaves in the end must be what the undisturbed one left: the same files, the same
bytes of pictures and latents, the same tables but for times.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.compare_checkouts import ROOT, SWEEP, compare

MODEL = ["--model_id", "tiny", "--quiet"]
COMMANDS = {
    "generate": ["generate_images.py", *MODEL, "--method", "batch_wise", "--output_path", "images"]
    + ["-b", "2", "--n_samples_per_prompt", "4", "--end", "4", "--save_latents", "--trace"],
    "score": ["metrics/compute_sscd_orig_clip_score.py", "--quiet", "--gen_folder", "RUN"],
    "detect": ["detect_memorization.py", *MODEL, "--detector", "noise_norm,bright_ending"]
    + ["-n", "2", "-b", "2", "--end", "6", "--save_masks"],
    "sweep": ["sweep.py", "sweep.toml", "--quiet", "--output_path", "sweep"],
}


def start(name: str, folder: Path) -> subprocess.Popen:
    """The command at work in the folder, in a process group of its own."""
    run = next((str(p) for p in folder.glob("images/batch_wise/*")), "none")
    script, *argv = [run if word == "RUN" else word for word in COMMANDS[name]]
    with open(folder.parent / f"{name}.log", "a", encoding="utf-8") as log:
        return subprocess.Popen(
            [sys.executable, str(ROOT / script), *argv],
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def finish(name: str, folder: Path) -> float:
    """Runs the command to its end. Returns its seconds; raises RuntimeError where it fails."""
    began = time.monotonic()
    code = start(name, folder).wait()
    if code:
        log = folder.parent / f"{name}.log"
        raise RuntimeError(f"{name} ended with exit code {code}:\n{log.read_text()[-2000:]}")
    return time.monotonic() - began


def kill_once(name: str, folder: Path, after: float) -> bool:
    """Starts the command and kills it so many seconds later. Returns false where it was done."""
    process = start(name, folder)
    try:
        process.wait(after)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True


def forget(folder: Path) -> None:
    """Leaves out who worked when: the claims of a sweep, and its page, which shows seconds."""
    shutil.rmtree(folder / "sweep" / "jobs" / "claims", ignore_errors=True)
    (folder / "sweep" / "report.html").unlink(missing_ok=True)


def main() -> int:
    """The command line. Returns 1 when something differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    moments = random.Random(args.seed)
    bad = []
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        work = place / "work"  # of all: paths in files are the same
        work.mkdir()
        (work / "sweep.toml").write_text(SWEEP.replace("MODEL", "tiny"))
        seconds = {}
        for name in COMMANDS:
            shutil.copytree(work, place / f"before-{name}")
            seconds[name] = finish(name, work)
            forget(shutil.copytree(work, place / f"after-{name}"))
            print(f"{name}: {seconds[name]:.1f} s undisturbed", flush=True)
        kills = dict.fromkeys(COMMANDS, 0)
        while sum(kills.values()) < args.kills:
            name = list(COMMANDS)[sum(kills.values()) % len(COMMANDS)]
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(place / f"before-{name}", work)
            after = moments.uniform(0.0, seconds[name])
            if not kill_once(name, work, after):
                continue
            kills[name] += 1
            finish(name, work)
            killed = work.rename(place / "killed")
            forget(killed)
            differences = compare((place / f"after-{name}", ROOT), (killed, ROOT))
            shutil.rmtree(killed)
            print(f"{name} killed after {after:.2f} s: {len(differences)} differ", flush=True)
            print("\n".join(differences), end="\n" if differences else "", flush=True)
            bad += differences
    print(", ".join(f"{name} {count}" for name, count in kills.items()), "kills")
    print(f"{len(bad)} files differ" if bad else "all the same")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
