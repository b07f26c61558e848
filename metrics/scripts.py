"""The scripts that score a run, and what each computes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Script:
    """A command that scores a run."""

    name: str
    description: str
    # What it computes, unless --metrics names others.
    metrics: tuple[str, ...]
    # The end of --help: flags of commands to copy.
    examples: tuple[str, ...]


COPIES = Script(
    "compute_sscd_orig_clip_score.py",
    "Copy similarity and text alignment of a run.",
    metrics=("sscd", "clip", "copy", "localized", "alignment"),
    examples=("--gen_folder RUN", "--gen_folder RUN --metrics sscd copy"),
)
PREFERENCE = Script(
    "compute_lpips_imagereward.py",
    "Diversity and preference of a run.",
    metrics=("lpips", "image_reward", "diversity", "quality"),
    examples=("--gen_folder RUN", "--gen_folder RUN --metrics lpips --num_samples 4"),
)
CHANGE = Script(
    "compute_diversity.py",
    "Change against the unmitigated run, and diversity among seeds.",
    metrics=("sscd_change", "feature_change"),
    examples=("--gen_folder RUN --unmitigated RUN0",),
)
