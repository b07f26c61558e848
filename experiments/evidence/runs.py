"""The runs of a sweep as figures, tables and claims read them: values by image and by prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf, isfinite
from pathlib import Path
from typing import Any

from memorization_suite import tiny
from memorization_suite.commands.sweeps.record import read_record
from memorization_suite.experiments.evidence.escape import first_free_start, first_minimum
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


# Of a config, what tells nothing of a setting.
APART = ("command", "output_path", "preset", "derivatives", "method", "device")


@dataclass(frozen=True)
class Evidence:
    """The runs of a sweep that are there."""

    runs: list[SweptRun]

    @classmethod
    def of(cls, out: Path) -> Evidence:
        """Those of the sweep in a folder, in its order. Raises ValueError where none was begun."""
        record = read_record(out)
        if record is None:
            raise ValueError(f"no sweep was begun in {out}")
        return cls([SweptRun(run.name, RunFolder(out / run.folder)) for run in record.runs])

    @property
    def commits(self) -> list[str]:
        """Of all runs."""
        return list(dict.fromkeys(commit for run in self.runs for commit in run.commits))

    @property
    def embedded(self) -> bool:
        """Whether an embedded model made an image, which is no Stable Diffusion."""
        return any(run.config["model_id"] in tiny.MODELS for run in self.runs)

    @property
    def models(self) -> list[str]:
        """Their names."""
        return list(dict.fromkeys(str(run.config["model_id"]) for run in self.runs))

    def select(self, wanted: str) -> list[SweptRun]:
        """Runs of a method with these settings: `batch_wise gamma=0 tau=900`; all for nothing.

        Raises ValueError when there is none.
        """
        method, *pairs = wanted.split() or [""]
        settings = dict(pair.partition("=")[::2] for pair in pairs)
        chosen = []
        for run in self.runs:
            same = all(is_value(run.config.get(name), text) for name, text in settings.items())
            if same and method in ("", run.method):
                chosen.append(run)
        if not chosen:
            raise ValueError(f"the sweep has no run {wanted!r}")
        return chosen

    def only(self, wanted: str) -> SweptRun:
        """The one run that is meant. Raises ValueError for none or several."""
        chosen = self.select(wanted)
        if len(chosen) > 1:
            raise ValueError(f"{wanted!r} are {len(chosen)} runs of the sweep, not one")
        return chosen[0]


def is_value(value: Any, text: str) -> bool:
    """Whether a setting is what a text says: 0.5, .5 and 5e-1 are one number."""
    try:
        return value is not None and float(value) == float(text)
    except ValueError:
        return str(value) == text


@dataclass(frozen=True)
class Paired:
    """Means of each prompt that all runs have, of one quantity."""

    prompts: list[int]
    # (prompts, runs)
    values: np.ndarray
    clusters: list[int]


def paired(runs: Sequence[SweptRun], quantity: str, prompts: Sequence[int] | None = None) -> Paired:
    """The prompts' means in several runs. prompts: only these. Raises ValueError without any, and
    where the runs' numbers do not compare.
    """
    check_comparable(runs, quantity)
    of_runs = [run.prompt_means(quantity) for run in runs]
    shared = set(of_runs[0]).intersection(*of_runs[1:])
    if prompts is not None:
        shared &= set(prompts)
    if not shared:
        raise ValueError(f"the runs share no prompt with {quantity}")
    rows = sorted(shared)
    table = [[of_run[prompt] for of_run in of_runs] for prompt in rows]
    labels = runs[0].clusters
    return Paired(rows, np.array(table, dtype=float), [labels.get(row, row) for row in rows])


def check_comparable(runs: Sequence[SweptRun], quantity: str) -> None:
    """Raises ValueError where a quantity is not the same measurement in all runs, as when some were
    scored before a checkpoint was there.
    """
    names = sorted({run.measured_by(quantity) for run in runs})
    if len(names) > 1:
        raise ValueError(
            f"{quantity} is {names[0]} in one run and {names[1]} in another: --rescore"
        )


def by_kind(run: SweptRun) -> Mapping[str, list[int]]:
    """`all` and every kind of memorization -> its prompts."""
    groups: dict[str, list[int]] = {"all": run.prompts}
    for prompt in run.prompts:
        kind = run.kinds.get(prompt, "")
        if kind:
            groups.setdefault(kind, []).append(prompt)
    return groups if len(groups) > 2 else {"all": run.prompts}


def pairs_of(
    x: Mapping[Key | int, float], y: Mapping[Key | int, float]
) -> dict[int, list[tuple[float, float]]]:
    """Prompt -> the two values of each of its seeds that has both."""
    pairs: dict[int, list[tuple[float, float]]] = {}
    for key in sorted(key for key in x if isinstance(key, Key) and key in y):
        assert isinstance(key, Key)
        pairs.setdefault(key.prompt, []).append((x[key], y[key]))
    return pairs


def free_starts(
    runs: Sequence[SweptRun], start: Callable[[SweptRun], int]
) -> dict[Key | int, float]:
    """Image -> first start of guidance from which on it is no copy; infinity for never.

    runs: of late guidance on equal seeds. start: first guided step of a run.
    """
    copies = {start(run): run.copies() for run in runs}
    shared = set.intersection(*(set(of_run) for of_run in copies.values()))
    found: dict[Key | int, float] = {}
    for key in shared:
        free = first_free_start({at: bool(of_run[key]) for at, of_run in copies.items()})
        found[key] = inf if free is None else free
    return found
