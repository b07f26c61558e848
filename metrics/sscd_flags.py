"""Which SSCD: flags of several scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from memorization_suite.metrics.checkpoints import Checkpoint
from memorization_suite.metrics.sscd import PRESETS, SSCD
from memorization_suite.runs.settings import Settings, flag, frozen_settings


@frozen_settings
class SscdFlags(Settings):
    """Checkpoint and preprocessing."""

    sscd: str = flag(
        "sscd_disc_mixup", "which SSCD checkpoint", choices=("sscd_disc_mixup", "sscd_disc_large")
    )
    sscd_checkpoint: Path | None = flag(
        None, "its TorchScript file (default: where download/ puts it)", metavar="FILE"
    )
    sscd_preset: str = flag(
        "official320",
        "how images are resized and normalized for SSCD",
        choices=tuple(PRESETS),
    )


def sscd_of(flags: SscdFlags, checkpoint: Checkpoint, options: dict[str, Any]) -> SSCD:
    """The embedder that the flags ask for. options: device and batch_size."""
    name = checkpoint.variant(flags.sscd)
    return SSCD(checkpoint.path, name=name, preset=flags.sscd_preset, **options)
