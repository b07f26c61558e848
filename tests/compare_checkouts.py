"""Runs the same commands in two checkouts and compares all that they write and print.

python -m tests.compare_checkouts OLD [NEW] [--only NAME]      # folders; NEW is this checkout

Every method, detector and metric runs on the embedded models, on small ranges. Bytes depend on the
processor, so nothing is stored: both checkouts run on one machine. Times, versions and the paths of
the checkouts are left out of the comparison.
"""

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
METHODS = (
    *("no_mitigation", "batch_wise", "per_sample", "static_transition", "dynamic_transition"),
    *("opposite_guidance", "prompt_embedding", "bright_ending_embedding"),
    *("anisotropy_embedding", "prss", "cross_attention", "guard", "ca_attenuation"),
    *("clip_padding", "random_tokens", "embedding_noise", "captain_noise"),
    *("stability_regions", "sail", "nemo"),
)
OWN_FLAGS = {"static_transition": ["--cfg_step", "9"]}
TIMES = {"seconds", "pass_seconds", "started", "finished", "environments", "command", "commit"}
STDOUT = "stdout.txt"
TIME = re.compile(r"\d+\.\d+ s\b|\d+\.\d+ s each")
WORKER = """
import json, runpy, sys, traceback
from pathlib import Path
root, commands = Path(sys.argv[1]), json.loads(sys.argv[2])
for script, *argv in commands:
    sys.argv = [str(root / script), *argv]
    print("$", script, *argv, flush=True)
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as leave:
        print("exit code", leave.code or 0, flush=True)
    except Exception:
        print("traceback", traceback.format_exc().splitlines()[-1], flush=True)
        traceback.print_exc()
"""


def generation(model: str) -> list[list[str]]:
    """Every method, the official stream, screening, a combination, a range."""
    base = [
        "generate_images.py",
        "--model_id",
        model,
        "--output_path",
        f"{model}/images",
        "--quiet",
    ]
    base += ["-b", "2", "--n_samples_per_prompt", "2", "--end", "3", "--save_latents", "--trace"]
    found = [[*base, "--method", name, *OWN_FLAGS.get(name, [])] for name in METHODS]
    found += [
        [*base, "--rng", "official", "--output_path", f"{model}/official"],
        [*base, "--method", "adj_init_noise", "--batch_wise", "--screen", "noise_norm:1.6"],
        [*base, "--method", "per_sample+cross_attention", "--start", "1"],
        [*base, "--method", "static_transition", "--cfg_step", "50"],
        [*base, "--method", "no_mitigation"],
    ]
    return found


def detection(model: str) -> list[list[str]]:
    """Every detector in one pass, the studies, thresholds, calibration, neurons."""
    script = "detect_memorization.py"
    where = ["--model_id", model, "--output_path", f"{model}/detections", "--quiet"]
    ordinary = f"{{root}}/tiny/prompts/{model}_ordinary_tuning.csv"
    memorized = f"{{root}}/tiny/prompts/{model}_memorized_test.csv"
    neurons = ["localize_neurons.py", "localize", "--model_id", model, "--scheduler", "keep"]
    statistics = f"{model}/statistics.safetensors"
    few = f"{model}/few.txt"
    return [
        [script, *where, "--detector", "all", "-n", "2", "-b", "2", "--end", "4", "--save_masks"],
        [script, *where, "--detector", "noise_norm", "-n", "2", "--end", "3", "--rng", "official"]
        + ["--output_path", f"{model}/official"],
        [script, "spectrum", *where, "--end", "1", "--iterations", "6", "--probes", "2"]
        + ["--operator", "lanczos", "arnoldi", "--at", "0", "2"],
        [script, "tokens", *where, "--end", "2", "-n", "2", "--num_steps", "3"],
        [script, "evaluate", f"{model}/detections", "--out", f"{model}/evaluation"],
        ["calibrate.py", "threshold", f"{model}/detections/noise_norm", "--fpr", "0.1"],
        ["calibrate.py", "stability", "--model_id", model, "--prompts", few]
        + ["-n", "2", "--quiet", "--out", f"{model}/stability.json"],
        ["localize_neurons.py", "statistics", "--model_id", model, "--scheduler", "keep"]
        + ["--prompts", ordinary, "--seeds", "3", "--threshold_prompts", "3", "--out", statistics],
        [*neurons, "--prompts", memorized, "--statistics", statistics, "--seeds", "3", "--end", "2"]
        + ["--threshold", "0.15", "--blocks", "all", "--quiet", "--out", f"{model}/neurons.json"],
    ]


def scoring(model: str) -> list[list[str]]:
    """Every metric that needs no download, summaries, plots, the page, a sweep."""
    runs = {
        "none": f"{model}/images/no_mitigation/g7_seed2",
        "official": f"{model}/official/no_mitigation/g7_seed2",
        "moved": f"{model}/images/embedding_noise/EMBEDDING_NOISE",
    }
    found = []
    for name in ("compute_sscd_orig_clip_score.py", "compute_lpips_imagereward.py"):
        for run in runs.values():
            found.append([f"metrics/{name}", "--gen_folder", run, "--quiet"])
    none, official, other = runs.values()
    return [
        *found,
        ["metrics/compute_diversity.py", "--gen_folder", other, "--unmitigated", none, "--quiet"],
        ["metrics/compute_fid.py", "--gen_folder", none, "--real_folder", other],
        ["metrics/summarize.py", none, other, official],
        ["metrics/plot_tradeoff.py", none, other, "--out", f"{model}/tradeoff.png"],
        ["make_report.py", f"{model}/images", "--out", f"{model}/report.html"],
        ["sweep.py", f"{model}/sweep.toml", "--quiet", "--output_path", f"{model}/sweep"],
        ["sweep.py", f"{model}/sweep.toml", "--quiet", "--output_path", f"{model}/sweep"],
    ]


SWEEP = """[common]
model_id = "MODEL"
n_samples_per_prompt = 2
batch_size = 2
end = 2

[[run]]
method = "no_mitigation"

[[run]]
method = "batch_wise"
gamma = [0, 3]
num_inference_steps = [20, 30]
"""
GROUPS = {"generation": generation, "detection": detection, "scoring": scoring}


def run(root: Path, out: Path, model: str, group: str) -> None:
    """One group of commands of one checkout, in one process."""
    folder = out / model
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "few.txt").write_text("a lantern\nthe tale of a broken bridge\ntwo tents\n")
    (folder / "sweep.toml").write_text(SWEEP.replace("MODEL", model))
    name = next((p.name for p in (folder / "images/embedding_noise").glob("*")), "none")
    commands = [
        [text.format(root=root).replace("EMBEDDING_NOISE", name) for text in command]
        for command in GROUPS[group](model)
    ]
    threads = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(root), json.dumps(commands)],
        cwd=out,
        env=os.environ | threads,
        capture_output=True,
        text=True,
    )
    (folder / f"{group}_{STDOUT}").write_text(done.stdout)
    (folder / f"{group}_stderr.txt").write_text(done.stderr)


def plain(value: object, places: list[Path]) -> object:
    """A value of a JSON or CSV file without times and places."""
    if isinstance(value, dict):
        return {name: plain(one, places) for name, one in value.items() if name not in TIMES}
    if isinstance(value, list):
        return [plain(one, places) for one in value]
    return without(value, places) if isinstance(value, str) else value


def without(text: str, places: list[Path]) -> str:
    """The text with the same word for every place of this side."""
    for place in places:
        text = text.replace(str(place), "PLACE")
    return text


def content(path: Path, places: list[Path]) -> object:
    """What a file says, comparable between checkouts."""
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8") as file:
            return plain(list(csv.DictReader(file)), places)
    if path.suffix == ".json":
        return plain(json.loads(path.read_text(encoding="utf-8")), places)
    if path.suffix in (".txt", ".html"):
        text = without(path.read_text(encoding="utf-8"), places)
        if path.suffix == ".html":  # seconds an image stand in a cell of their own
            text = re.sub(r'<span class="value">\d+\.\d\d</span>|<td[^>]*>\d+\.\d\d<', "TIME", text)
        return TIME.sub("TIME", text)
    return path.read_bytes()


def compare(old: tuple[Path, Path], new: tuple[Path, Path]) -> list[str]:
    """A line for each file that is not the same. old, new: (what was made, the checkout)."""
    ignored = re.compile(r".*_stderr\.txt|scored\.json")
    files = {
        path.relative_to(out)
        for out, _ in (old, new)
        for path in out.rglob("*")
        if path.is_file() and not ignored.fullmatch(path.name)
    }
    differing = []
    for file in sorted(files):
        before = old[0] / file
        after = new[0] / file
        if not before.exists() or not after.exists():
            differing.append(f"{file}: only in {'new' if after.exists() else 'old'}")
        elif content(before, list(old)) != content(after, list(new)):
            differing.append(f"{file}: differs")
    print(f"{len(files)} files compared, {len(differing)} differ")
    return differing


def main() -> int:
    """The command line. Returns 1 when something differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path, nargs="?", default=ROOT)
    parser.add_argument("--only", nargs="+", choices=list(GROUPS), default=list(GROUPS))
    parser.add_argument("--models", nargs="+", default=["tiny", "tiny-v"])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "compare")
    parser.add_argument("--keep", action="store_true", help="use what OLD made before")
    args = parser.parse_args()
    roots = {"old": args.old.resolve(), "new": args.new.resolve()}
    for side, root in roots.items():
        out = args.out.resolve() / side
        if side == "old" and args.keep and out.exists():
            continue
        if args.only == list(GROUPS):
            shutil.rmtree(out, ignore_errors=True)
        for model in args.models:
            for group in args.only:
                run(root, out, model, group)
    sides = [(args.out.resolve() / side, root) for side, root in roots.items()]
    differences = compare(*sides)
    print("\n".join(differences))
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
