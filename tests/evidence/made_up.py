"""A sweep's folder with numbers of our choice, as figures, tables and claims find it: no model, no
metric.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from memorization_suite import tiny
from memorization_suite.commands.sweeps.record import Member, Record
from memorization_suite.metrics.embedded import read_captions
from memorization_suite.runs import Key, RunFolder
from memorization_suite.runs.files import write_csv, write_json
from memorization_suite.runs.table import Result, add_results

STEPS = 10
TIMESTEPS = [1000 - 100 * i - 19 for i in range(STEPS)]


@dataclass
class MadeRun:
    """What a run is to have. Functions of an image's Key."""

    method: str = "no_mitigation"
    settings: dict = field(default_factory=dict)
    # Quantity -> value.
    scores: dict = field(default_factory=dict)
    # Magnitudes of the steps.
    trace: object = None
    # (drawn, adjusted) noise.
    noise: object = None
    # Gray level of the picture.
    gray: object = lambda key: 40 * key.prompt % 256

    @property
    def name(self):
        told = [f"{name}={value}" for name, value in self.settings.items()]
        return " ".join([f"method={self.method}", *told])


def falling_at(step, start=2.0):
    """Magnitudes that rise, fall at a step, and rise again; without a step they rise."""
    values = [start + 0.1 * i for i in range(STEPS)]
    if step is not None:
        values[step] = 0.3 * start
    return values


def make_sweep(out: Path, runs, *, prompts: int = 4, samples: int = 3, model: str = "tiny") -> Path:
    """Writes the runs, of the first prompts of an embedded model's test split."""
    file = tiny.prompts(model)
    members = []
    for place, run in enumerate(runs):
        folder = RunFolder(out / run.method / f"s{place}")
        write_run(folder, run, file, prompts, samples, model)
        members.append(
            Member(
                run.name,
                folder.path.relative_to(out).as_posix(),
                typed={"method": run.method, **run.settings},
                start=0,
                end=prompts,
                samples=samples,
                batch_size=1,
                latents=run.noise is not None,
                trace=run.trace is not None,
                pieces=1,
            )
        )
    Record("made up", scores=True, plugins=[], runs=members).write(out)
    return out


def write_run(folder, run, file, prompts, samples, model):
    """One of them."""
    folder.path.mkdir(parents=True)
    config = {"model_id": model, "prompts": str(file), "method": run.method, "guidance_scale": 7.0}
    write_json(folder.path / "config.json", config | run.settings)
    manifest = {"schema": 1, "identity": {"method": run.method}, "environments": []}
    manifest |= {"finished": "2026-01-01T00:00:00+00:00"}
    (folder.path / "manifest.json").write_text(json.dumps(manifest))
    captions = read_captions(file)
    rows, traces, results = [], [], []
    for key in [Key(prompt, sample) for prompt in range(prompts) for sample in range(samples)]:
        text = captions[key.prompt].text
        cost = {"unet_evals": 100, "seconds": 0.5, "finite": 1}
        rows.append({**key.columns, "prompt": text, **cost})
        level = int(run.gray(key))
        Image.new("RGB", (8, 8), (level, level, level)).save(folder.image_path(key))
        for step, value in enumerate(run.trace(key) if run.trace else []):
            about = {"step": step, "timestep": TIMESTEPS[step], "magnitude": value}
            traces.append({**key.columns, **about, "guidance_scale": 0})
        if run.noise:
            folder.latents_path(key).parent.mkdir(exist_ok=True)
            kept = dict(zip(("initial", "adjusted"), run.noise(key)))
            plain = {name: value.astype(np.float32) for name, value in kept.items()}
            save_file(plain, folder.latents_path(key))
        for quantity, score in run.scores.items():
            about = (folder.path.name, run.method, key.prompt, key.sample)
            results.append(Result(*about, quantity, "made_up", score(key)))
    write_csv(folder.path / "images.csv", rows)
    if traces:
        write_csv(folder.path / "trace.csv", traces)
    add_results(folder.path, results)
    references = []
    for caption in captions[:prompts]:
        about = {"prompt_index": caption.row, "index": caption.index, "type": caption.kind}
        references.append({**about, "sha256": f"hash{caption.index}"})
    write_csv(folder.path / "references.csv", references)
