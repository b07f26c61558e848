"""Which subjects of the embedded model's world does an image show? A linear probe on EfficientNet
features.

The probe saw artwork on random backgrounds, never a generated image. It was made by
experiments/train_probe.py, which commit 82ab029bb8 had last.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Collection

from memorization_suite.metrics.base import Job, Metric, Quantity, register
from memorization_suite.metrics.embedded import subjects_of
from memorization_suite.metrics.image_features import EfficientNet, image_features
from memorization_suite.metrics.runs import Group
from memorization_suite.metrics.scores import FeatureScore, Score
from memorization_suite.runs.lazy import Lazy, torch
from memorization_suite.tiny import PROBE

safetensors = Lazy("safetensors")

VARIANT = "efficientnet_lite0_probe"
# Shares of a picture's height and width that its parts have: corners, halves.
CORNER = (2 / 3, 2 / 3)
HALVES = ((0.6, 1.0), (1.0, 0.6))


@functools.cache
def probe() -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Weight (subjects, 1280), bias and the subjects' names."""
    with safetensors.safe_open(PROBE, framework="pt") as file:
        weight = file.get_tensor("weight").float()
        bias = file.get_tensor("bias").float()
        names = json.loads(file.metadata()["subjects"])
    return weight, bias, names


def subject_logits(images: torch.Tensor) -> torch.Tensor:
    """Logits of every subject. images: (n, 3, h, w) in [0, 1] -> (n, subjects)."""
    return logits_of(image_features(images).cpu())


def logits_of(features: torch.Tensor) -> torch.Tensor:
    """Logits from EfficientNet features. (n, 1280) -> (n, subjects)."""
    weight, bias, _ = probe()
    return features @ weight.T + bias


def subject_probability(logits: torch.Tensor, subjects: Collection[str]) -> torch.Tensor:
    """How well an image fits a caption that names `subjects`: exp(-KL) from an even share for each
    of them to the probe's probabilities.

    logits: (n, all subjects) -> (n,) in [0, 1]. 1: the probe sees each of them equally often and
    nothing else. For one subject it is its probability; a caption of two needs both. Raises
    ValueError for a subject the probe does not know.
    """
    log_probabilities = logits.log_softmax(1)[:, columns(subjects)]
    log_ratios = log_probabilities + math.log(len(subjects))  # to an even share
    return log_ratios.mean(1).exp().clamp(max=1)


def subject_shown(logits: torch.Tensor, subjects: Collection[str]) -> torch.Tensor:
    """(n,) bool: an image's likeliest subject is one of `subjects`.

    logits: (n, all subjects). Raises ValueError for a subject the probe does not know.
    """
    return torch.isin(logits.argmax(1), columns(subjects))


def likeliest_of_parts(images: torch.Tensor) -> torch.Tensor:
    """The likeliest subject of each image and of its parts, columns of the logits.

    images: (n, 3, h, w) in [0, 1] -> (n, 9). One subject of two is seen best where it is alone.
    """
    shown = [subject_logits(part).argmax(1) for part in (images, *parts_of(images))]
    return torch.stack(shown, dim=1)


def parts_of(images: torch.Tensor) -> list[torch.Tensor]:
    """The four corners of images, then their upper, lower, left and right halves."""
    parts = []
    for shares in (CORNER, *HALVES):
        high, wide = (round(share * side) for share, side in zip(shares, images.shape[2:]))
        for rows in ends(high, images.shape[2]):
            for across in ends(wide, images.shape[3]):
                parts.append(images[:, :, rows, across])
    return parts


def ends(length: int, side: int) -> list[slice]:
    """The first and the last `length` of a side; all of it is one place."""
    return [slice(None)] if length == side else [slice(length), slice(side - length, None)]


def all_shown(likeliest: torch.Tensor, subjects: Collection[str]) -> torch.Tensor:
    """(n,) bool: each of `subjects` is the likeliest one of an image or of one of its parts.

    likeliest: of `likeliest_of_parts`, (n, 9). Raises ValueError for a subject the probe does not
    know.
    """
    wanted = columns(subjects)
    return (likeliest[:, :, None] == wanted).any(1).all(1)


def columns(subjects: Collection[str]) -> torch.Tensor:
    """Columns of the logits that belong to these subjects."""
    _, _, names = probe()
    unknown = sorted(set(subjects) - set(names))
    if unknown:
        raise ValueError(f"the probe does not know {unknown[0]!r}")
    return torch.tensor([names.index(subject) for subject in subjects])


@register(
    "alignment",
    Quantity(
        "subject_probability",
        better="higher",
        role="alignment",
        what="embedded models: how surely a classifier sees all subjects of the caption",
        variant=VARIANT,
    ),
    Quantity(
        "subject_shown",
        better="higher",
        role="alignment",
        yes="an independent classifier sees the caption's subject",
        what="embedded models: 1 if the classifier's first choice is a subject of the caption",
        variant=VARIANT,
    ),
)
class SubjectMetric(Metric):
    """Text alignment of an embedded model's images: its prompt files name their subjects."""

    def scores(self, job: Job) -> list[Score]:
        subjects = subjects_of(job.run.prompts_file)
        if not subjects:
            return []

        def probability(features: torch.Tensor, group: Group) -> torch.Tensor:
            return subject_probability(logits_of(features), subjects[group.prompt.row])

        def shown(features: torch.Tensor, group: Group) -> torch.Tensor:
            return subject_shown(logits_of(features), subjects[group.prompt.row]).float()

        features = job.network(EfficientNet)
        return [
            FeatureScore("subject_probability", features, probability, VARIANT),
            FeatureScore("subject_shown", features, shown, VARIANT),
        ]
