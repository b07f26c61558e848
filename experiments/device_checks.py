"""What `make gpu-check` does on a device, and what must agree with the CPU in fp32."""

from __future__ import annotations

import gc
import json
import math
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from memorization_suite import ROOT, tiny
from memorization_suite.commands import calibrate, neurons
from memorization_suite.commands.detect import detect
from memorization_suite.commands.detect_plan import plan_detection
from memorization_suite.commands.generate import Run, generate
from memorization_suite.commands.generate_plan import plan
from memorization_suite.commands.settings import load_model
from memorization_suite.detection import DETECTORS
from memorization_suite.metrics.base import METRICS
from memorization_suite.mitigation import METHODS
from memorization_suite.pipelines.loading import load_pipeline
from memorization_suite.prompts.files import read_prompts
from memorization_suite.runs.environment import set_tf32
from memorization_suite.runs.tables import read_csv
from memorization_suite.sampling import Denoiser

DTYPES = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Tolerance:
    """How far the device may be from the CPU in fp32, relatively."""

    # ||ours - theirs|| / ||theirs|| of final latents: of the middle image, and of the farthest.
    latents: float
    farthest: float
    # Magnitudes before a method acts.
    before: float
    # Magnitudes after it.
    after: float
    # Scores, norms and eigenvalues, of the largest one.
    scores: float


# fp32 on CUDA is fp32: it differs by the order of sums alone. Half precision rounds every layer:
# the CPU's own is up to 0.3 (bf16) and 0.12 (fp16) from its fp32 in the middle image of four, and
# one of them can become another picture, since methods decide and guidance amplifies.
TOLERANCE = {
    "fp32": Tolerance(latents=1e-3, farthest=0.01, before=1e-4, after=0.02, scores=2e-3),
    "fp16": Tolerance(latents=0.25, farthest=math.inf, before=5e-3, after=0.4, scores=0.25),
    "bf16": Tolerance(latents=0.5, farthest=math.inf, before=0.02, after=0.5, scores=0.3),
}
# The CPU beside itself.
EXACT = Tolerance(0, 0, 0, 0, 0)
# They move by the sign of a gradient, which differs where the gradient is near zero. Their images
# may be others: what agrees is the magnitude before and after, and, in fp32, the NFE.
OPTIMIZING = (
    "per_sample",
    "sail",
    "prompt_embedding",
    "anisotropy_embedding",
    "bright_ending_embedding",
)
STEPS = 6
# Pixels of an image.
SIDE = 32
COMMON = {
    "end": 2,
    "n_samples_per_prompt": 2,
    "batch_size": 2,
    "num_inference_steps": STEPS,
    "quiet": True,
}
# Images of a detector, two of each prompt of both sets.
SCORED = 8
# What makes a method act on every image in few steps.
FLAGS: dict[str, dict[str, Any]] = {
    "batch_wise": {"apply_cfg_step": 2},
    "static_transition": {"cfg_step": 3},
    "dynamic_transition": {"fallback_step": 4},
    "opposite_guidance": {"fallback_step": 4},
    "per_sample": {"target_loss": 0.01, "optim_iters": 3},
    "sail": {"l_thres": 0.01, "max_steps": 3, "restarts": 0},
    "prompt_embedding": {"optim_target_loss": 0.01, "optim_iters": 2},
    "anisotropy_embedding": {"optim_target_loss": -9.0, "optim_iters": 2},
    "bright_ending_embedding": {"optim_target_loss": 0.001, "optim_iters": 2},
}
# Of a row of a table.
TIMES = ("seconds", "pass_seconds")


class Differs(Exception):
    """What differed, in a line."""


def need(condition: bool, text: str) -> None:
    """Raises Differs."""
    if not condition:
        raise Differs(text)


@dataclass(frozen=True)
class Check:
    """Something that must hold."""

    name: str
    # Raises when it does not.
    work: Callable[[], None]
    # Starts what takes long in processes of its own.
    begin: Callable[[], None] | None = None


@dataclass(frozen=True)
class Place:
    """What is run where."""

    model: str
    device: str
    dtype: str

    def __str__(self) -> str:
        return f"{self.model}/{self.dtype}"

    @property
    def reference(self) -> Place:
        """Where the numbers to compare with come from."""
        return replace(self, device="cpu", dtype="fp32")

    @property
    def tolerance(self) -> Tolerance:
        """Against the reference."""
        return EXACT if self.device == "cpu" and self.dtype == "fp32" else TOLERANCE[self.dtype]

    @property
    def flags(self) -> dict[str, str]:
        """For every command."""
        return {"model_id": self.model, "device": self.device, "dtype": self.dtype}


@dataclass
class Bench:
    """A folder for everything that is made, and the models, which are loaded once."""

    folder: Path
    device: str
    models: dict[tuple, Denoiser] = field(default_factory=dict)
    # Of runs and files that several checks use.
    made: dict[tuple, Any] = field(default_factory=dict)
    # Processes that were begun.
    children: list[Child] = field(default_factory=list)

    def load(self, model_id: str, *, tf32: bool = False, **given: Any) -> Denoiser:
        """In the place of `load_pipeline`."""
        key = (model_id, *sorted(given.items()))
        if key not in self.models:
            self.models[key] = load_pipeline(model_id, tf32=tf32, **given)
        set_tf32(tf32)
        return self.models[key].fork()

    def once(self, work: Callable, *about: Any) -> Any:
        """What the work gives; it is done once. A fault stays a fault."""
        key = (work.__name__, *about)
        if key not in self.made:
            try:
                self.made[key] = work(self, *about)
            except Exception as error:
                self.made[key] = error
        if isinstance(self.made[key], Exception):
            raise self.made[key]
        return self.made[key]

    def close(self) -> None:
        """Ends what still runs."""
        for child in self.children:
            child.kill()

    def memorized(self, model: str) -> Path:
        """A file of two prompts: of a picture and of a layout that the model memorized."""
        path = self.folder / f"{model}_memorized.csv"
        if not path.exists():
            lines = tiny.prompts(model).read_text(encoding="utf-8").splitlines()
            kinds = (next(line for line in lines if f";{kind};" in line) for kind in ("VM", "LM"))
            path.write_text("\n".join([lines[0], *kinds]), encoding="utf-8")
        return path

    def ordinary(self, model: str) -> Path:
        """A file of few ordinary prompts."""
        path = self.folder / f"{model}_ordinary.txt"
        prompts = read_prompts(tiny.prompts(model, "ordinary_tuning"))[:6]
        path.write_text("\n".join(prompt.caption for prompt in prompts), encoding="utf-8")
        return path

    def out(self, kind: str, place: Place) -> Path:
        """A folder for results of a kind."""
        path = self.folder / kind / f"{place.model}_{place.device.replace(':', '')}_{place.dtype}"
        path.mkdir(parents=True, exist_ok=True)
        return path


# --- images ---


def images(bench: Bench, place: Place, method: str, kind: str, load=None, **typed: Any) -> Run:
    """A run of a method with its few steps."""
    own = COMMON | FLAGS.get(method.partition("+")[0], {}) | typed
    own["prompts"] = str(bench.memorized(place.model))
    if method == "stability_regions":
        own["statistics"] = bench.once(norms, place, kind, 7.0)
    planned = plan(**place.flags, **own, method=method, output_path=str(bench.out(kind, place)))
    return generate(planned, load=load or bench.load)


def method_run(bench: Bench, place: Place, kind: str, method: str) -> Run:
    """The run that is compared, with latents."""
    return images(bench, place, method, kind, save_latents=True)


def both(bench: Bench, place: Place, work: Callable, *about: Any) -> tuple[Any, Any]:
    """What the work gives on the device, and as reference."""
    ours = bench.once(work, place, "device", *about)
    return ours, bench.once(work, place.reference, "reference", *about)


def check_method(bench: Bench, place: Place, name: str) -> None:
    """Finite images; NFE, magnitudes and latents as on the CPU."""
    ours, theirs = both(bench, place, method_run, name)
    if place.dtype == "fp32":
        compare_evaluations(ours, theirs)
    compare_runs(ours, theirs, place.tolerance, optimizes=name.partition("+")[0] in OPTIMIZING)


def compare_evaluations(ours: Run, theirs: Run) -> None:
    """Raises Differs when an image took other NFE."""
    expected = theirs.folder.costs()
    for key, row in ours.folder.costs().items():
        evals = row["unet_evals"], expected[key]["unet_evals"]
        need(evals[0] == evals[1], f"NFE of image {key}: {evals[0]}, not {evals[1]}")


def compare_runs(ours: Run, theirs: Run, tolerance: Tolerance, *, optimizes: bool) -> None:
    """Raises Differs."""
    rows = ours.folder.costs()
    expected = theirs.folder.costs()
    need(rows.keys() == expected.keys() and len(rows) == 4, f"{len(rows)} images, not 4")
    for key, row in rows.items():
        need(row["finite"] == "1", f"the latents of image {key} are not finite")
        need(row.get("failed") in (None, "", "0.0"), f"image {key} failed")
        with Image.open(ours.folder.image_path(key)) as picture:
            need(picture.size == (SIDE, SIDE), f"image {key} has {picture.size} pixels")
    compare_columns(rows, expected, "first_magnitude", tolerance.before)
    compare_columns(rows, expected, "last_magnitude", tolerance.after)
    if not optimizes:
        far = [distance(ours, theirs, key) for key in rows]
        close(statistics.median(far), tolerance.latents, "final latents of the middle image")
        close(max(far), tolerance.farthest, "final latents of the farthest image")


def compare_columns(rows: Mapping, expected: Mapping, column: str, tolerance: float) -> None:
    """Raises Differs when a figure of the images is farther off than this."""
    for key, row in rows.items():
        if expected[key].get(column):
            value = float(row[column])
            wanted = float(expected[key][column])
            close(abs(value - wanted) / max(abs(wanted), 1e-6), tolerance, f"{column} of {key}")


def close(far: float, tolerance: float, what: str) -> None:
    """Raises Differs, for nan too."""
    need(far <= tolerance, f"{what}: {far:.2g} off, at most {tolerance:g}")


def distance(ours: Run, theirs: Run, key) -> float:
    """||ours - theirs|| / ||theirs|| of an image's final latents."""
    one, other = (load_file(run.folder.latents_path(key))["final"] for run in (ours, theirs))
    return float((one - other).norm() / other.norm())


def same_bytes(ours: Path, theirs: Path) -> None:
    """Raises Differs unless two run folders hold the same pictures and figures."""
    names = [sorted(path.name for path in folder.glob("img_*.png")) for folder in (ours, theirs)]
    need(names[0] == names[1] != [], f"{len(names[0])} pictures, and {len(names[1])}")
    for name in names[0]:
        equal = (ours / name).read_bytes() == (theirs / name).read_bytes()
        need(equal, f"{name} is not the same bytes ({grey_levels(ours / name, theirs / name)})")
    need(untimed(ours / "images.csv") == untimed(theirs / "images.csv"), "images.csv differs")


def grey_levels(ours: Path, theirs: Path) -> str:
    """How far two pictures are apart, for people."""
    one, other = (np.asarray(Image.open(path), dtype=int) for path in (ours, theirs))
    return f"up to {abs(one - other).max()} grey levels"


def untimed(table: Path) -> list[dict[str, str]]:
    """Rows of a table without times."""
    return [{name: row[name] for name in row if name not in TIMES} for row in read_csv(table)]


def check_again(bench: Bench, place: Place, method: str) -> None:
    """A second run gives the same bytes."""
    first = bench.once(method_run, place, "device", method)
    same_bytes(images(bench, place, method, "again").path, first.path)


def check_official_stream(bench: Bench, place: Place) -> None:
    """The official draws, which are the device's own: twice the same."""
    runs = [
        images(bench, place, "no_mitigation", kind, rng="official") for kind in ("rng1", "rng2")
    ]
    same_bytes(runs[0].path, runs[1].path)


def check_trace(bench: Bench, place: Place) -> None:
    """Magnitudes and guidance of each step."""
    tables = []
    for kind, where in (("trace", place), ("trace_reference", place.reference)):
        run = images(bench, where, "batch_wise", kind, trace=True)
        tables.append(read_csv(run.path / "trace.csv"))
    ours, theirs = tables
    scales = [[row["guidance_scale"] for row in table] for table in tables]
    need(scales[0] == scales[1], "the guidance of the steps differs")
    compare_numbers(*([float(row["magnitude"]) for row in one] for one in (ours, theirs)), place)


def compare_numbers(ours: list[float], theirs: list[float], place: Place) -> None:
    """Raises Differs when a number is farther off than a share of the largest."""
    need(len(ours) == len(theirs) > 0, f"{len(ours)} numbers, not {len(theirs)}")
    far = float(np.abs(np.subtract(ours, theirs)).max() / np.abs(theirs).max())
    close(far, place.tolerance.scores, "the farthest of the numbers")


# --- stopping and going on ---


class Stop(Exception):
    """In the middle of a run."""


def stopping(model: Denoiser) -> Denoiser:
    """The model, which stops the run when it decodes the second batch."""
    decode = model.decode
    sizes: list[int] = []

    def decode_once(latents: torch.Tensor) -> torch.Tensor:
        sizes.append(len(latents))
        if sizes.count(COMMON["n_samples_per_prompt"]) == 2:  # the model is tried with one image
            raise Stop
        return decode(latents)

    model.__dict__["decode"] = decode_once
    return model


def whole_run(bench: Bench, place: Place, method: str) -> Run:
    """A prompt a batch, without a stop."""
    return images(bench, place, method, "whole", batch_size=1)


def check_resume(bench: Bench, place: Place, method: str) -> None:
    """A run that was stopped and goes on gives the bytes of one that was not."""
    given = {"kind": "resumed", "batch_size": 1}
    stopped = False
    try:
        images(bench, place, method, load=lambda *a, **k: stopping(bench.load(*a, **k)), **given)
    except Stop:
        stopped = True
    need(stopped, "the run did not stop")
    resumed = images(bench, place, method, **given)
    need(len(resumed.made) == 2, f"{len(resumed.made)} images were left, not 2")
    same_bytes(resumed.path, bench.once(whole_run, place, method).path)


# --- scores ---


def scores(bench: Bench, place: Place, kind: str, name: str) -> Path:
    """A detector's folder; several detectors joined by commas have several in one."""
    sets = (bench.memorized(place.model), bench.ordinary(place.model))
    own = dict(zip(("prompts", "nonmem_prompts"), map(str, sets)))
    if "stability" in (name, *name.split(",")):
        own["statistics"] = bench.once(norms, place, kind, 7.5)
    out = bench.out(f"{kind}_scores_{name}", place)
    asked = {"detector": name, "save_masks": name == "bright_ending", "output_path": str(out)}
    detect(plan_detection(**place.flags, **COMMON, **own, **asked), load=bench.load)
    return out


def check_detector(bench: Bench, place: Place, name: str) -> None:
    """Scores as on the CPU, masks that are finite."""
    folders = both(bench, place, scores, name)
    ours, theirs = (
        [float(row["score"]) for row in read_csv(folder / name / "scores.csv")]
        for folder in folders
    )
    need(bool(np.isfinite(ours).all()), "a score is not finite")
    for path in (folders[0] / name / "masks").glob("*.npy"):
        need(bool(np.isfinite(np.load(path)).all()), f"{path.name} is not finite")
    compare_numbers(ours, theirs, place)


def check_all_detectors(bench: Bench, place: Place) -> None:
    """One trajectory for all gives the scores of one each, to rounding."""
    folder = bench.once(scores, place, "device", ",".join(DETECTORS))
    for name in DETECTORS:
        rows = read_csv(folder / name / "scores.csv")
        values = [float(row["score"]) for row in rows]
        need(len(values) == SCORED and bool(np.isfinite(values).all()), f"{name}: {values}")


def check_screening(bench: Bench, place: Place) -> None:
    """Images above the threshold are the mitigated run's bytes, the others the plain run's."""
    rows = read_csv(bench.once(scores, place, "device", "noise_norm") / "noise_norm" / "scores.csv")
    values = sorted(float(row["score"]) for row in rows if row["set"] == "mem")
    threshold = (values[1] + values[2]) / 2
    run = images(bench, place, "cross_attention", "screened", screen=f"noise_norm:{threshold}")
    flagged = {key: row["mitigated"] == "1.0" for key, row in run.folder.costs().items()}
    need(any(flagged.values()), "no image is flagged")
    need(not all(flagged.values()), "every image is flagged")
    for key, is_flagged in flagged.items():
        method = "cross_attention" if is_flagged else "no_mitigation"
        path = bench.once(method_run, place, "device", method).folder.image_path(key)
        theirs = run.folder.image_path(key)
        need(path.read_bytes() == theirs.read_bytes(), f"{key} is not the image of {method}")


def check_threshold(bench: Bench, place: Place) -> None:
    """The largest score of the ordinary images, as on the CPU."""
    folders = both(bench, place, scores, "noise_norm")
    made = [calibrate.threshold(folder / "noise_norm", fpr=0.0) for folder in folders]
    values = [max(threshold.ordinary) for threshold in made]
    compare_numbers(values[:1], values[1:], place)


def norms(bench: Bench, place: Place, kind: str, guidance_scale: float) -> str:
    """Path of the statistics that calibrate stability writes."""
    out = bench.out(kind, place) / f"stability_{guidance_scale:g}.json"
    few = bench.ordinary(place.model)
    own = {"num_inference_steps": STEPS, "guidance_scale": guidance_scale, "batch_size": 6}
    calibrate.stability(**place.flags, **own, prompts=str(few), out=out, quiet=True)
    return str(out)


def check_stability(bench: Bench, place: Place) -> None:
    """Means of the norms as on the CPU."""
    paths = both(bench, place, norms, 7.0)
    means = [json.loads(Path(path).read_text(encoding="utf-8"))["mean"] for path in paths]
    for name in means[1]:
        compare_numbers(means[0][name], means[1][name], place)


# --- studies, which run in float32 ---


def check_spectrum(bench: Bench, place: Place) -> None:
    """Eigenvalues of both operators."""
    from memorization_suite.commands.spectrum import spectrum

    own = {"operator": ("lanczos", "arnoldi"), "kind": ("text",), "iterations": 3, "probes": 1}
    values = study(bench, place, spectrum, "spectrum", "eigenvalue", own)
    compare_numbers(*values, place)


def check_tokens(bench: Bench, place: Place) -> None:
    """Significance of tokens."""
    from memorization_suite.commands.tokens import tokens

    own = {"n_samples_per_prompt": 2, "num_steps": 2}
    compare_numbers(*study(bench, place, tokens, "tokens", "score", own), place)


def study(bench, place: Place, job: Callable, name: str, column: str, own: dict) -> list:
    """A column of a study's table: ours, theirs."""
    found = []
    for kind, where in ((name, place), (f"{name}_reference", place.reference)):
        flags = {"model_id": where.model, "device": where.device, "end": 1, "quiet": True}
        flags |= {"num_inference_steps": STEPS, "output_path": str(bench.out(kind, where))}
        flags["prompts"] = str(bench.memorized(place.model))
        folder = job(load=bench.load, **flags, **own).path
        found.append([float(row[column]) for row in read_csv(folder / f"{name}.csv")])
    return found


def neuron_files(bench: Bench, place: Place, kind: str) -> tuple[Path, Path]:
    """Statistics of few ordinary prompts, and the neurons of a memorized one."""
    out = bench.out(kind, place)
    few = bench.ordinary(place.model)
    shared = {**place.flags, "scheduler": "keep", "seeds": 2, "quiet": True}
    norms_file = out / "statistics.safetensors"
    neurons.ordinary(**shared, prompts=few, threshold_prompts=2, out=norms_file)
    found = out / "neurons.json"
    memorized = bench.memorized(place.model)
    own = {"prompts": memorized, "statistics": norms_file, "threshold": 0.15}
    neurons.search(**shared, **own, end=1, out=found)
    return norms_file, found


def check_neurons(bench: Bench, place: Place) -> None:
    """Statistics as on the CPU; the search ends."""
    files = both(bench, place, neuron_files)
    ours, theirs = (load_file(file) for file, _ in files)
    for name, values in theirs.items():
        compare_numbers(*(one[name].flatten().tolist() for one in (ours, theirs)), place)
        need(values.numel() > 0, f"{name} is empty")
    need(files[0][1].is_file(), "no file of neurons")


# --- metrics ---


def check_metric(bench: Bench, place: Place, name: str) -> None:
    """The same pictures, scored on the device and on the CPU."""
    from memorization_suite.commands.score import score

    run = bench.once(method_run, place.reference, "reference", "embedding_noise")
    plain = bench.once(method_run, place.reference, "reference", "no_mitigation")
    against = {"unmitigated": plain.path} if METRICS[name].against == "unmitigated" else {}
    values = []
    for device in (place.device, "cpu"):
        table = score(run, [name], device=device, quiet=True, **against)
        need(bool(table.results), f"no values: {table.left_out.get(name)}")
        values.append([row.value for row in table.results])
    compare_numbers(*values, place)


def free_metrics() -> list[str]:
    """Those that need no download."""
    from memorization_suite.commands.doctor import checkpoints_of

    return [name for name in METRICS if not checkpoints_of(name, {})]


# --- flags ---


def check_tf32(bench: Bench, place: Place) -> None:
    """--tf32 rounds, and fp32 is fp32 again after it."""
    rounded = images(bench, place, "no_mitigation", "tf32", tf32=True, save_latents=True)
    plain = bench.once(method_run, place, "device", "no_mitigation")
    far = max(distance(rounded, plain, key) for key in plain.folder.costs())
    close(far, TOLERANCE["fp16"].latents, "final latents with --tf32")
    if place.device != "cpu":
        need(far > 0, "--tf32 changes nothing")
    same_bytes(images(bench, place, "no_mitigation", "after_tf32").path, plain.path)


def check_memory(bench: Bench, place: Place, method: str) -> None:
    """A small --memory_budget: several passes give the images of one, to rounding."""
    from memorization_suite.sampling import memory

    whole = bench.once(method_run, place, "device", method)
    model = load_model(whole.plan.settings, bench.load, unet_id=None, dtype=place.dtype)
    gc.collect()  # what is free is the same when the run measures
    gradient = method in OPTIMIZING
    size = memory.pass_bytes(model, SIDE, gradient=gradient)
    budget = (memory.held_bytes(model) + 2.9 * size) / memory.SHARE / memory.GIB
    kind = {"kind": "memory", "save_latents": True}
    run = images(bench, place, method, memory_budget=budget, **kind)
    rows = (run.folder.manifest() or {})["memory"]["backward" if gradient else "forward"]
    need(rows is not None and rows < 8, f"{rows} rows in a pass, not less than 8")
    compare_evaluations(run, whole)
    compare_runs(run, whole, TOLERANCE[place.dtype], optimizes=method in OPTIMIZING)


def check_compile(bench: Bench, place: Place) -> None:
    """--compile gives the same images, to rounding."""
    run = images(bench, place, "no_mitigation", "compiled", compile=True, save_latents=True)
    plain = bench.once(method_run, place, "device", "no_mitigation")
    compare_runs(run, plain, TOLERANCE[place.dtype], optimizes=False)


# --- other processes ---


@dataclass
class Child:
    """A command in a process of its own, begun early and read late."""

    words: list[str]
    log: Path
    process: subprocess.Popen | None = None

    def begin(self) -> None:
        """Starts it."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.words],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=environment,
                start_new_session=True,
            )

    def kill(self) -> None:
        """Ends it and what it started, if it still runs."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Waits for it. Raises Differs with its last line when it failed."""
        assert self.process is not None
        try:
            code = self.process.wait()
        finally:
            self.kill()
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        need(code == 0, f"exit code {code}: {(lines or ['no output'])[-1]} (all of it: {self.log})")


def words_of(bench: Bench, place: Place, out: Path, **typed: Any) -> list[str]:
    """Flags of a script."""
    words = []
    files = {"prompts": bench.memorized(place.model), "output_path": out}
    for name, value in {**place.flags, **COMMON, **files, **typed}.items():
        words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return words


def door_checks(bench: Bench, place: Place) -> Iterator[Check]:
    """Scripts as people type them, and `accelerate launch`, give the bytes of this process."""
    whole = partial(bench.once, whole_run, place, "batch_wise")
    typed = {"method": "batch_wise", **FLAGS["batch_wise"], "batch_size": 1}

    def child(name: str, words: list[str]) -> Child:
        bench.children.append(Child(words, bench.folder / "logs" / f"{name}.txt"))
        return bench.children[-1]

    def launched(name: str, launch: list[str]) -> Check:
        out = bench.folder / name
        words = ["-m", "accelerate.commands.launch", *launch, "generate_images.py"]
        process = child(name, [*words, *words_of(bench, place, out, **typed)])

        def work() -> None:
            process.end()
            same_bytes(next(out.glob("*/*")), whole().path)

        return Check(f"door/accelerate_launch/{name}", work, process.begin)

    count = processes(place.device)
    kind = ["--cpu"] if place.device == "cpu" else ["--multi_gpu"] if count > 1 else []
    fixed = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    yield launched(f"{count}_processes", [*kind, *fixed, "--num_processes", str(count)])

    halves = [bench.folder / f"half{row}" for row in (0, 1)]
    both_halves = []
    for row, out in enumerate(halves):
        words = words_of(bench, place, out, **typed, start=row) + ["--end", str(row + 1)]
        both_halves.append(child(f"half{row}", ["generate_images.py", *words]))

    def begin_halves() -> None:
        for process in both_halves:
            process.begin()

    def check_halves() -> None:
        for row, process in enumerate(both_halves):
            process.end()
            for path in next(halves[row].glob("*/*")).glob("img_*.png"):
                equal = path.read_bytes() == (whole().path / path.name).read_bytes()
                need(equal, f"{path.name} is not the same bytes")

    yield Check("door/generate_images/two_at_once", check_halves, begin_halves)

    out = bench.folder / "door_scores"
    ordinary = bench.ordinary(place.model)
    words = words_of(bench, place, out, detector="noise_norm", nonmem_prompts=ordinary)
    process = child("detect_memorization", ["detect_memorization.py", *words])

    def check_scores() -> None:
        process.end()
        ours = bench.once(scores, place, "device", "noise_norm") / "noise_norm" / "scores.csv"
        need(untimed(out / "noise_norm" / "scores.csv") == untimed(ours), "scores.csv differs")

    yield Check("door/detect_memorization", check_scores, process.begin)


def processes(device: str) -> int:
    """One for each GPU, at most as many as there are batches. NCCL takes no two on one GPU."""
    return 2 if device == "cpu" else min(2, torch.cuda.device_count())


# --- all of them ---


def checks(bench: Bench) -> Iterator[Check]:
    """Every check, in the order in which they run."""
    for model in tiny.MODELS:
        for dtype in DTYPES:
            yield from checks_of(bench, Place(model, bench.device, dtype))
    door_place = Place("tiny", bench.device, "bf16")
    yield from door_checks(bench, door_place)


def checks_of(bench: Bench, place: Place) -> Iterator[Check]:
    """Those of a model and a dtype."""

    def made(name: str, work: Callable, *about: Any) -> Check:
        return Check(f"{place}/{name}", partial(work, bench, place, *about))

    yield made("calibrate/stability", check_stability)
    for name in METHODS:
        yield made(f"method/{name}", check_method, name)
    yield made("method/per_sample+cross_attention", check_method, "per_sample+cross_attention")
    for name in DETECTORS:
        yield made(f"detector/{name}", check_detector, name)
    yield made("detectors/all", check_all_detectors)
    yield made("calibrate/threshold", check_threshold)
    yield made("screening", check_screening)
    yield made("neurons", check_neurons)
    yield made("trace", check_trace)
    for method in ("no_mitigation", "per_sample"):
        yield made(f"memory_budget/{method}", check_memory, method)
    yield made("rng/official", check_official_stream)
    for method in ("no_mitigation", "per_sample"):
        yield made(f"again/{method}", check_again, method)
    for method in ("no_mitigation", "per_sample"):
        yield made(f"resume/{method}", check_resume, method)
    if place.dtype == "fp32":
        yield made("spectrum", check_spectrum)
        yield made("tokens", check_tokens)
        yield made("tf32", check_tf32)
        if place.model == "tiny" and place.device != "cpu":  # minutes of a compiler there
            yield made("compile", check_compile)
        for name in free_metrics():
            yield made(f"metric/{name}", check_metric, name)
