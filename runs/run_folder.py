"""The folder of one run of generate_images.py: images by key, and the tables of them."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from memorization_suite.runs.files import write_bytes
from memorization_suite.runs.store import Store

NAME = re.compile(r"img_(\d+)_(\d+)\.(png|jpg)")


@dataclass(frozen=True)
class Asked:
    """What a run is to have, so that everybody can tell when it is whole."""

    # Rows of the prompt file, and images of each.
    start: int
    end: int
    samples: int
    # Images that the whole file would have.
    of: int
    # What is kept beside an image.
    latents: bool = False
    trace: bool = False

    def keys(self) -> set[Key]:
        """The images."""
        rows = range(self.start, self.end)
        return {Key(row, sample) for row in rows for sample in range(self.samples)}


@dataclass(frozen=True, order=True)
class Key:
    """An image: row of the prompt file, and which of the prompt's samples."""

    prompt: int
    sample: int

    def __str__(self) -> str:
        return f"{self.prompt:04d}_{self.sample:02d}"

    @classmethod
    def of(cls, row: Mapping[str, str]) -> Key:
        """The image that a row of a table is about. Raises ValueError or KeyError."""
        return cls(int(row["prompt_index"]), int(row["sample_index"]))

    @property
    def columns(self) -> dict:
        """The columns that say which image a row is about."""
        return {"key": str(self), "prompt_index": self.prompt, "sample_index": self.sample}


class RunFolder(Store):
    """`img_PPPP_SS.png`, `latents/`, `images.csv`, `trace.csv`, `config.json`, `manifest.json`.

    A batch is saved whole: images first, then its rows, which mark it as done. Scores of the images
    lie beside them, in `results.csv` and `references.csv`.
    """

    files = ("img_*.png", "latents", "results.csv", "references.csv")
    tables = {"trace": Key.of, "images": Key.of}
    levels = 2

    def image_path(self, key: Key) -> Path:
        """Where the image is, or will be."""
        return self.path / f"img_{key}.png"

    def latents_path(self, key: Key) -> Path:
        """Where its latents are, with --save_latents."""
        return self.path / "latents" / f"img_{key}.safetensors"

    def save_image(self, key: Key, image) -> None:
        """image: a PIL image."""
        data = io.BytesIO()
        image.save(data, format="PNG")
        write_bytes(self.image_path(key), data.getvalue())

    def save_latents(self, key: Key, tensors: dict) -> None:
        """tensors: name -> float32 tensor (4, h, w)."""
        from safetensors.torch import save

        self.latents_path(key).parent.mkdir(exist_ok=True)
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        write_bytes(self.latents_path(key), save(tensors))

    def complete(self, *, latents: bool, trace: bool) -> set[Key]:
        """Keys of the images that are whole: picture, row, and what else was asked for."""
        keys = self.done("images")
        if trace:
            keys &= self.done("trace")
        if latents:
            kept = names_in(self.path / "latents")
            keys = {key for key in keys if f"img_{key}.safetensors" in kept}
        pictures = names_in(self.path)
        return {key for key in keys if f"img_{key}.png" in pictures}

    def is_whole(self, asked: dict) -> bool:
        """Whether every image has its rows, which are written after it, and its latents."""
        wanted = Asked(**asked)
        keys = wanted.keys()
        tables = ["images", "trace"] if wanted.trace else ["images"]
        if not all(self.done(table).issuperset(keys) for table in tables):
            return False
        kept = names_in(self.path / "latents") if wanted.latents else set()
        return not wanted.latents or all(f"img_{key}.safetensors" in kept for key in keys)

    def close(self, asked: dict) -> None:
        """Notes the end, and how many images there are."""
        self.finish(images=len(self.done("images")), of=Asked(**asked).of)

    def missing(self, wanted: Iterable[Key], *, latents: bool, trace: bool) -> set[Key]:
        """The wanted images that are not whole: what a run has to make."""
        return set(wanted) - self.complete(latents=latents, trace=trace)

    def costs(self) -> dict[Key, dict[str, str]]:
        """Rows of images.csv by image."""
        return {Key.of(row): row for row in self.rows("images")}

    def images(self, names: Collection[str] | None = None) -> dict[Key, Path]:
        """Image files by key. names: in the folder, where they were listed already.

        Raises ValueError when there are none, or one that is of no run.
        """
        found: dict[Key, Path] = {}
        names = names_in(self.path) if names is None else names
        for name in sorted(name for name in names if name.endswith((".png", ".jpg"))):
            path = self.path / name
            match = NAME.fullmatch(name)
            if not match:
                raise ValueError(
                    f"{path} is no image of a run, whose names are img_PPPP_SS.png: "
                    "move it elsewhere"
                )
            key = Key(int(match[1]), int(match[2]))
            if key in found:
                raise ValueError(
                    f"{path} and {found[key].name} are both image {key}: move one elsewhere"
                )
            found[key] = path
        if not found:
            raise ValueError(
                f"{self.path} has no images img_PPPP_SS.png. "
                "Is it a run folder (<output_path>/<method>/<settings>_seed<seed>)?"
            )
        return found


def names_in(folder: Path) -> set[str]:
    """Names of what lies in a folder, by one listing; none where there is no folder."""
    try:
        return set(os.listdir(folder))
    except FileNotFoundError:
        return set()
