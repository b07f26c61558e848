"""One run of a sweep as figures, tables and claims read it: values by image and by prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any

from memorization_suite import tiny
from memorization_suite.experiments.evidence.escape import first_minimum
from memorization_suite.metrics.base import quantities_of, quantity_named
from memorization_suite.metrics.embedded import read_captions
from memorization_suite.metrics.intervals import is_copy, prompt_means
from memorization_suite.metrics.references import stored_rows
from memorization_suite.metrics.summary import clusters
from memorization_suite.runs import Key, RunFolder
from memorization_suite.runs.lazy import Lazy, np
from memorization_suite.runs.settings import number_text
from memorization_suite.runs.table import Result, read_results
from memorization_suite.runs.tables import read_csv

tensors = Lazy("safetensors.numpy")

# How far below the largest earlier magnitude a transition lies: Jain et al.'s rule, made safe
# against ripples.
DROP = 0.3
# Roles of metrics that a quantity may be named by, so that one file fits every model.
ROLES = ("copy", "alignment", "diversity", "quality")
# Of a config, what tells nothing of a setting.
APART = ("command", "output_path", "preset", "derivatives", "method", "device")


@dataclass(frozen=True)
class Trace:
    """What is known of an image's steps."""

    timesteps: list[float]
    # Epsilon units.
    magnitudes: list[float]

    @property
    def transition(self) -> int | None:
        """Step of the transition; None where the magnitude never falls deep enough."""
        return first_minimum(self.magnitudes, DROP)


@dataclass(frozen=True)
class SweptRun:
    """One run. It keeps what it has read."""

    # Its own settings, as the sweep calls it.
    name: str
    folder: RunFolder

    @cached_property
    def config(self) -> dict[str, Any]:
        """Every setting, whether typed or not."""
        return self.folder.config()

    @property
    def commits(self) -> list[str]:
        """Of the suite that made its images; a resumed run may have several."""
        made = (self.folder.manifest() or {}).get("environments", [])
        return [str(each["commit"])[:12] for each in made if each.get("commit")]

    @property
    def method(self) -> str:
        return str(self.config["method"])

    @cached_property
    def costs(self) -> dict[Key, dict[str, str]]:
        """Rows of images.csv."""
        return self.folder.costs()

    @property
    def prompts(self) -> list[int]:
        """Rows of its prompts."""
        return sorted({key.prompt for key in self.costs})

    @property
    def captions(self) -> dict[int, str]:
        """Prompt -> its text."""
        return {key.prompt: row["prompt"] for key, row in self.costs.items()}

    @cached_property
    def references(self) -> dict[int, dict[str, str]]:
        """Prompt -> what is known of its training images."""
        return stored_rows(self.folder.path)

    @cached_property
    def kinds(self) -> dict[int, str]:
        """Prompt -> kind of memorization; empty for an ordinary caption."""
        kinds = {prompt: row.get("type", "") for prompt, row in self.references.items()}
        if self.config["model_id"] in tiny.MODELS:
            try:
                captions = read_captions(Path(self.config["prompts"]))
            except (OSError, ValueError):
                return kinds
            for caption in captions:
                both = f"{caption.kind} {caption.group}"
                kinds[caption.row] = both if caption.kind == "VM" else caption.kind
        return kinds

    @cached_property
    def clusters(self) -> dict[int, int]:
        """Prompt -> label of the prompts that share its training images."""
        hashes = {prompt: set(row["sha256"].split()) for prompt, row in self.references.items()}
        known = clusters(hashes)
        return {prompt: known.get(prompt, prompt) for prompt in self.prompts}

    @cached_property
    def traces(self) -> dict[Key, Trace]:
        """Image -> its steps. Raises ValueError for a run without them."""
        found: dict[Key, Trace] = {}
        for row in read_csv(self.folder.path / "trace.csv"):
            trace = found.setdefault(Key.of(row), Trace([], []))
            trace.timesteps.append(float(row["timestep"]))
            trace.magnitudes.append(float(row["magnitude"]))
        if not found:
            raise ValueError(f"the run {self.name} has no trace: set trace = true")
        return found

    @cached_property
    def scores(self) -> list[Result]:
        """Rows of results.csv that are numbers of an image or a prompt."""
        rows = read_results(self.folder.path)
        return [row for row in rows if row.prompt_index is not None and isfinite(row.value)]

    @cached_property
    def variants(self) -> dict[str, str]:
        """Quantity -> its variant that counts: the first one."""
        found: dict[str, str] = {}
        for row in self.scores:
            found.setdefault(row.quantity, row.variant)
        return found

    @cached_property
    def results(self) -> dict[str, dict[Key | int, float]]:
        """Quantity -> value of each image, or of each prompt where it is one of those."""
        found: dict[str, dict[Key | int, float]] = {}
        for row in self.scores:
            if row.prompt_index is None or row.variant != self.variants[row.quantity]:
                continue
            sample = row.sample_index
            key = row.prompt_index if sample is None else Key(row.prompt_index, sample)
            found.setdefault(row.quantity, {})[key] = row.value
        return found

    def values(self, quantity: str) -> dict[Key | int, float]:
        """Image (or prompt) -> value.

        quantity: of results.csv or images.csv, one of ROLES, `copies` (1 or 0), `magnitude` (of the
        first step), `transition` (its step; an image without one is left out: it may have left
        the basin at once, or never), `transitions` (whether there is one). Raises ValueError for
        one that the run does not have.
        """
        special = {
            "magnitude": lambda trace: trace.magnitudes[0],
            "transition": lambda trace: trace.transition,
            "transitions": lambda trace: float(trace.transition is not None),
        }
        if quantity in special:
            found = {key: special[quantity](trace) for key, trace in self.traces.items()}
            return {key: value for key, value in found.items() if value is not None}
        if quantity == "copies":
            return self.copies()
        name = self.of_role(quantity) if quantity in ROLES else quantity
        if name in self.results:
            return self.results[name]
        column = {key: float(row[name]) for key, row in self.costs.items() if row.get(name)}
        if column:
            return dict(column)
        raise ValueError(f"the run {self.name} has no {quantity}: score it first")

    def of_role(self, role: str) -> str:
        """The first quantity of a role that it has. Raises ValueError."""
        for quantity in quantities_of(role):
            if quantity.name in self.results:
                return quantity.name
        raise ValueError(f"the run {self.name} has no score of the role {role}: score it first")

    def measured_by(self, quantity: str) -> str:
        """A quantity's own name and variant. Raises ValueError for a role that it lacks."""
        role = "copy" if quantity == "copies" else quantity
        name = self.of_role(role) if role in ROLES else role
        return f"{name} {self.variants.get(name, '')}".strip()

    def copies(self) -> dict[Key | int, float]:
        """Whether each image is a copy, by the strictest threshold."""
        name = self.of_role("copy")
        known = quantity_named(name)
        assert known is not None
        return {
            key: float(is_copy(value, known.thresholds[-1]))
            for key, value in self.results[name].items()
        }

    def prompt_means(self, quantity: str) -> dict[int, float]:
        """Prompt -> mean of its images' values."""
        pairs = []
        for key, value in self.values(quantity).items():
            pairs.append((key.prompt if isinstance(key, Key) else key, value))
        return {
            int(prompt): mean for prompt, mean in prompt_means(pairs).items() if prompt is not None
        }

    def noises(self) -> tuple[np.ndarray, np.ndarray]:
        """(drawn, adjusted) noise of all images, each (n, c, h, w). Raises ValueError."""
        files = [self.folder.latents_path(key) for key in sorted(self.costs)]
        if not files or not files[0].exists():
            raise ValueError(f"the run {self.name} has no latents: set save_latents = true")
        kept = [tensors.load_file(file) for file in files]
        return tuple(np.stack([each[name] for each in kept]) for name in ("initial", "adjusted"))

    def title(self, beside: Sequence[SweptRun] = ()) -> str:
        """Its method, and the method's settings in which it differs from others of it."""
        others = [run for run in beside if run.method == self.method and run is not self]
        parts = []
        for name, value in self.config.items():
            if name in APART:
                continue
            if value is not None and any(run.config.get(name) != value for run in others):
                parts.append(f"{name} {number_text(value)}")
        return " ".join([self.method, *parts])
