"""What images of a sweep cost that are there already, and what others will: measured, else from
commands/speeds.toml where the model is like the one of its figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from memorization_suite.commands.generate_plan import Plan
from memorization_suite.commands.hints import HALVES, measured_seconds, speed_sources, speeds
from memorization_suite.commands.sweeps.nfe import Evaluations
from memorization_suite.pipelines.kinds import SD1, SD2_BASE, SD2_V, Kind, Unknown
from memorization_suite.pipelines.models import kind_of
from memorization_suite.runs.run_folder import RunFolder

# Kinds of models that the figures of speeds.toml are taken for.
LIKE_MEASURED = (SD1, SD2_BASE, SD2_V)
# Files whose sizes are looked at, of a run.
LOOKED_AT = 100
# Bytes of a pixel without compression.
PIXEL = 3


@dataclass(frozen=True)
class Measured:
    """Images that are there: how many, and means over them."""

    images: int
    nfe: float
    seconds: float
    # Of a picture's file; None without any.
    bytes: float | None
    # Kinds of devices that made them: cpu, cuda.
    devices: frozenset[str] = frozenset()

    @classmethod
    def together(cls, parts: Sequence[Measured]) -> Measured | None:
        """Of all their images; None of none."""
        if not parts:
            return None
        images = sum(part.images for part in parts)
        sizes = [part.bytes for part in parts if part.bytes is not None]
        return cls(
            images,
            sum(part.images * part.nfe for part in parts) / images,
            sum(part.images * part.seconds for part in parts) / images,
            sum(sizes) / len(sizes) if sizes else None,
            frozenset().union(*(part.devices for part in parts)),
        )

    @property
    def where(self) -> str:
        """` on cuda`; empty where it is not known."""
        return f" on {' and '.join(sorted(self.devices))}" if self.devices else ""


def measured_in(plan: Plan) -> Measured | None:
    """Of the run's images that are there; None without any."""
    folder = RunFolder(plan.folder)
    prompts = plan.rows
    rows = []
    for key, row in folder.costs().items():
        if key.prompt in prompts and row.get("seconds") and row.get("unet_evals"):
            rows.append((key, float(row["seconds"]), float(row["unet_evals"])))
    if not rows:
        return None
    sizes = []
    for key, _, _ in islice(rows, LOOKED_AT):
        path = folder.image_path(key)
        if path.is_file():
            sizes.append(path.stat().st_size)
    device = (folder.manifest() or {}).get("identity", {}).get("device")
    return Measured(
        len(rows),
        nfe=sum(nfe for _, _, nfe in rows) / len(rows),
        seconds=sum(seconds for _, seconds, _ in rows) / len(rows),
        bytes=sum(sizes) / len(sizes) if sizes else None,
        devices=frozenset([device] if device else []),
    )


def same_size(plan: Plan) -> tuple:
    """What runs share whose evaluations take equally long."""
    settings = plan.settings
    return settings.model_id, settings.unet_id, settings.image_length


def same_work(plan: Plan) -> tuple:
    """What runs share that differ in their method's settings alone."""
    return same_size(plan), plan.mitigation.name, plan.settings.num_inference_steps


@dataclass(frozen=True)
class Known:
    """What was measured of a sweep's runs: each alone, and those that are alike together."""

    own: Mapping[Path, Measured | None]
    work: Mapping[tuple, Measured | None]
    size: Mapping[tuple, Measured | None]

    @classmethod
    def of(cls, plans: Sequence[Plan]) -> Known:
        """Reads the run folders."""
        own = {plan.folder: measured_in(plan) for plan in plans}

        def grouped(key: Callable[[Plan], tuple]) -> dict[tuple, Measured | None]:
            groups: dict[tuple, list[Measured]] = {}
            for plan in plans:
                there = own[plan.folder]
                groups.setdefault(key(plan), []).extend([there] if there else [])
            return {about: Measured.together(parts) for about, parts in groups.items()}

        return cls(own, grouped(same_work), grouped(same_size))

    def nfe(self, plan: Plan, counted: Evaluations) -> tuple[float, tuple[str, ...]]:
        """(of an image, what was assumed). Where images decide, those that are there tell."""
        alike = self.work[same_work(plan)]
        own = self.own[plan.folder]
        if not counted.notes or alike is None:
            return counted.network, counted.notes
        whose = "" if own else ", at other settings of the method"
        return (own or alike).nfe, (f"NFE of {alike.images} images measured here{whose}",)

    def seconds(
        self, plan: Plan, counted: Evaluations, nfe: float
    ) -> tuple[float | None, list[str]]:
        """(of an image on one device, or None; where it comes from)."""
        alike = self.work[same_work(plan)]
        others = alike or self.size[same_size(plan)]
        there = self.own[plan.folder] or others
        if there is not None and others is not None:
            whose = "" if alike else " of other methods"
            source = (
                f"{plan.mitigation.name}, seconds of {others.images} images{whose} measured here"
                f"{others.where}, scaled by NFE"
            )
            return there.seconds * nfe / there.nfe, [source]
        settings = plan.settings
        if kind_or_none(settings) not in LIKE_MEASURED:
            device = speeds()["measured"]["device"]
            return None, [
                f"seconds: none were measured of {settings.model_id}; those of {device} are not "
                "its own"
            ]
        rows = HALVES * settings.batch_size * settings.n_samples_per_prompt
        pixels = settings.image_length
        seconds = measured_seconds(nfe, counted.backward, rows=rows, pixels=pixels)
        return seconds, speed_sources(pixels, counted.backward)

    def picture(self, plan: Plan) -> tuple[float, str]:
        """(bytes of a picture's file, where they come from)."""
        there = self.own[plan.folder] or self.size[same_size(plan)]
        if there is not None and there.bytes is not None:
            return there.bytes, "storage: by pictures measured here"
        pixels = plan.settings.image_length**2
        return float(PIXEL * pixels), "storage: at most, of pictures without compression"


def kind_or_none(settings: Any) -> Kind | None:
    """What the model is; None where it does not tell."""
    try:
        return kind_of(settings.model_id, settings.unet_id)
    except Unknown:
        return None
