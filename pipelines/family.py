"""What a model family is: how its models are recognized and loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from memorization_suite.pipelines.kinds import Kind, Read, Unknown
from memorization_suite.pipelines.model_files import every_file
from memorization_suite.runs.lazy import torch
from memorization_suite.runs.registry import Registry
from memorization_suite.runs.settings import Settings, frozen_settings
from memorization_suite.runs.text import reason_of
from memorization_suite.runs.weights import Incomplete
from memorization_suite.sampling.denoiser import Denoiser, Unusable

# What to type in the place of a model that cannot be loaded.
GIVE = (
    "Give a local diffusers folder (download/README.md tells how to get one), or use the embedded "
    "model with --model_id tiny."
)


@frozen_settings
class Family(Settings):
    """Models of one kind. Their answers are a `Denoiser`, which `load` gives."""

    name: ClassVar[str]
    # What people call it.
    title: ClassVar[str]
    # `_class_name` in the model_index.json of its models.
    pipelines: ClassVar[tuple[str, ...]]
    # Folders that lie beside that file.
    parts: ClassVar[tuple[str, ...]] = ()
    # What --scheduler may be; keep: the model's own.
    schedulers: ClassVar[tuple[str, ...]] = ("keep",)

    def describe(self, read: Read) -> Kind:
        """What a model is. read: gives a JSON file of it. Raises Unknown.

        A family may leave this out: --image_length must be typed then, and no preset is found.
        """
        raise Unknown(f"a {self.title} model does not tell its size")

    def files(self, folder: Path) -> list[Path]:
        """The files of a model's folder that `load` reads: a run is another one when they change.

        A family may leave this out: all files count then, but documents and pictures.
        """
        return every_file(folder)

    def former_files(self, folder: Path) -> list[Path]:
        """The files that `files` gave in an earlier version, whose runs go on."""
        return self.files(folder)

    def load(
        self, source: str, *, unet_id: str | None, dtype: str, device: str, scheduler: str
    ) -> Denoiser:
        """The model, frozen, on the device. source: a folder or hub id. dtype: fp32, bf16, fp16.

        Raises Unusable for a model that cannot be run; any other error says that it is not whole.
        """
        raise NotImplementedError


FAMILIES: Registry[Family] = Registry("model family", "pipelines", plural="model families")


def register(name: str, *, title: str, pipelines: tuple[str, ...]):
    """Class decorator: lists a family under `name`."""
    return FAMILIES.register(name, title=title, pipelines=pipelines)


@contextmanager
def can_load(flag: str, model_id: str) -> Iterator[None]:
    """Inside the block any error becomes `Unusable`: the libraries raise a dozen kinds for one
    fact. Memory that is not enough is none of them.
    """
    give = f". {GIVE}" if flag == "--model_id" else ""
    try:
        yield
    except Unusable:
        raise
    except Unknown as error:
        raise Unusable(f"{error}{give}") from error
    except Incomplete as error:
        raise Unusable(f"cannot load {flag} {model_id}: {error}{give}") from error
    except Exception as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        if Path(model_id).exists():
            where = reason_of(error)
        else:
            where = (
                "it is not on this machine and the hub cannot be reached, or has no such model "
                f"({type(error).__name__})"
            )
            give = f". {GIVE}"
        raise Unusable(f"cannot load {flag} {model_id}: {where}{give}") from error
