"""The folder of one run of generate_images.py: images by key, and the tables of them."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from memorization_suite.runs.batches import Row
from memorization_suite.runs.files import write_bytes
from memorization_suite.runs.nobodys import owned
from memorization_suite.runs.notices import say
from memorization_suite.runs.store import Store
from memorization_suite.runs.tables import whole
from memorization_suite.runs.text import first_of
from memorization_suite.runs.whole import (
    There,
    ends_fault,
    names_in,
    picture_fault,
    sizes_in,
    tensors_fault,
)

NAME = re.compile(r"img_(\d+)_(\d+)\.(png|jpg)")
# The same of another program, of which there is no manifest.
NAMED = re.compile(r"img_(\d+)_(\d+)\.(?i:png|jpe?g|webp)")


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
        """The image that a row of a table is about. Raises ValueError."""
        return cls(whole(row, "prompt_index"), whole(row, "sample_index"))

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
    numbers = {
        "trace": ("step", "timestep", "magnitude", "guidance_scale"),
        "images": ("seed", "unet_evals", "seconds", "finite", "flat", "file_bytes"),
    }
    levels = 2

    def image_path(self, key: Key) -> Path:
        """Where the image is, or will be."""
        return self.path / f"img_{key}.png"

    def latents_path(self, key: Key) -> Path:
        """Where its latents are, with --save_latents."""
        return self.path / "latents" / f"img_{key}.safetensors"

    def save_image(self, key: Key, image) -> int:
        """Returns the bytes of the file. image: a PIL image. Raises OSError."""
        data = io.BytesIO()
        image.save(data, format="PNG")
        write_bytes(self.image_path(key), data.getvalue(), self.check_begun)
        return len(data.getvalue())

    def save_latents(self, key: Key, tensors: dict) -> None:
        """tensors: name -> float32 tensor (4, h, w)."""
        from safetensors.torch import save

        self.latents_path(key).parent.mkdir(exist_ok=True)
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        write_bytes(self.latents_path(key), save(tensors), self.check_begun)

    def complete(self, *, latents: bool, trace: bool) -> set[Key]:
        """Keys of the images that are whole: picture, row, and what else was asked for."""
        return self.look(latents=latents, trace=trace).complete

    def look(
        self,
        own: Collection[Key] | None = None,
        *,
        latents: bool,
        trace: bool,
        decode: bool = False,
    ) -> There:
        """What is there, by one listing of each folder.

        own: the images that are looked at, default all. decode: every picture is read, else only
        those whose size is not as it was written.
        """
        rows = self.merged("images")[0]
        keys = set(rows) if own is None else rows.keys() & set(own)
        if trace:
            keys &= self.traced()
        sizes = sizes_in(self.path, ".png")
        names = {key: name for key in keys if (name := f"img_{key}.png") in sizes}
        faults = self.picture_faults(names, rows, sizes, decode=decode)
        changed = [
            self.path / name
            for key, name in names.items()
            if rows[key][-1].get("file_bytes") not in (None, "", str(sizes[name]))
        ]
        complete = set(names)
        if latents:
            files, more = self.latents_faults(complete)
            complete &= files
            faults |= more
        kept = [path for path in changed if path not in faults]
        return There(complete - {key_of(path) for path in faults}, faults, kept)

    def traced(self) -> set[Key]:
        """The images with a row of trace.csv for every step."""
        rows = self.merged("trace")[0]
        most = max(map(len, rows.values()), default=0)
        last = str(most - 1)
        return {
            key
            for key, of_key in rows.items()
            if len(of_key) == most and of_key[-1].get("step") == last
        }

    def picture_faults(
        self,
        names: Mapping[Key, str],
        rows: Mapping[Key, list[Row]] | None = None,
        sizes: Mapping[str, int] | None = None,
        *,
        decode: bool = False,
    ) -> dict[Path, str]:
        """Faults of the run's own pictures; copies in another format are not looked at.

        names: of the files. rows, sizes: of images.csv and of the files by name, where they are
        known already. decode: see `look`.
        """
        rows = self.merged("images")[0] if rows is None else rows
        to_read = []
        for key, name in names.items():
            if not name.endswith(".png") or key not in rows:
                continue
            written = rows[key][-1].get("file_bytes")  # older runs do not tell
            size = size_of(self.path / name) if sizes is None else sizes[name]
            if decode or not written or written != str(size):
                fault_of = picture_fault if decode or written else ends_fault
                to_read.append((self.path / name, fault_of))
        with ThreadPoolExecutor(4) as pool:
            faults = list(pool.map(lambda entry: entry[1](entry[0]), to_read))
        return {path: fault for (path, _), fault in zip(to_read, faults) if fault}

    def latents_faults(self, keys: Collection[Key]) -> tuple[set[Key], dict[Path, str]]:
        """(those of the images that have latents, faults of files). One of the same size as a whole
        one is not read.
        """
        sizes = sizes_in(self.path / "latents", ".safetensors")
        there = {key for key in keys if f"img_{key}.safetensors" in sizes}
        of_whole: set[int] = set()
        faults = {}
        for key in sorted(there):
            path = self.latents_path(key)
            if sizes[path.name] not in of_whole:
                fault = tensors_fault(path)
                if fault:
                    faults[path] = fault
                else:
                    of_whole.add(sizes[path.name])
        return there, faults

    def is_whole(self, asked: dict) -> bool:
        """Whether every image has its rows, which are written after it, and its latents."""
        wanted = Asked(**asked)
        keys = wanted.keys()
        if not self.done("images").issuperset(keys):
            return False
        if wanted.trace and not self.traced().issuperset(keys):
            return False
        kept = names_in(self.path / "latents") if wanted.latents else set()
        return not wanted.latents or all(f"img_{key}.safetensors" in kept for key in keys)

    def close(self, asked: dict) -> None:
        """Notes the end, and how many images there are."""
        self.finish(of=Asked(**asked).of)

    def end_facts(self, counts: Mapping[str, int]) -> dict[str, int]:
        return {"images": counts["images"]}

    def costs(self) -> dict[Key, dict[str, str]]:
        """Rows of images.csv by image; of another program's folder, without a manifest, none: a
        table of that name is its own.
        """
        if self.manifest() is None:
            return {}
        return {Key.of(row): row for row in self.rows("images")}

    def config(self) -> dict:
        """As of every store; of another program's folder, another program's is nothing."""
        try:
            return super().config()
        except ValueError:
            if self.is_foreign():
                return {}
            raise

    def command_again(self) -> str:
        """As of every store; another program's command is not ours to give."""
        return "" if self.is_foreign() else super().command_again()

    def is_foreign(self) -> bool:
        """Whether there is no manifest, as in folders that other programs made."""
        return not (self.path / "manifest.json").exists()

    def images(self, names: Collection[str] | None = None) -> dict[Key, Path]:
        """Image files by key. names: in the folder, where they were listed already.

        Where there is no manifest, pictures of other names are left out, which is said. Raises
        ValueError when there are none, and in a run for one that is of no run.
        """
        names = owned(sorted(names_in(self.path) if names is None else names))
        pictures = [name for name in names if name.endswith((".png", ".jpg"))]
        of_run = [name for name in pictures if NAME.fullmatch(name)]
        others = [name for name in pictures if not NAME.fullmatch(name)]
        if others and not self.is_foreign():
            raise ValueError(
                f"{self.path / others[0]} is no image of a run, whose names are img_PPPP_SS.png: "
                "move it elsewhere"
            )
        found: dict[Key, Path] = {}
        for name in of_run:
            key = key_named(name)
            path = self.path / name
            if key in found:
                raise ValueError(
                    f"{path} and {found[key].name} are both image {key}: move one elsewhere"
                )
            found[key] = path
        if self.is_foreign():
            for name in filter(NAMED.fullmatch, names):
                found.setdefault(key_named(name), self.path / name)
        if not found:
            held = f" (it holds {first_of(others, 2)})" if others else ""
            raise ValueError(
                f"{self.path} has no images img_PPPP_SS.png{held}. "
                "Is it a run folder (<output_path>/<method>/<settings>_seed<seed>), or one that "
                "the official script made?"
            )
        if others:
            pictures_are = "1 picture is" if len(others) == 1 else f"{len(others)} pictures are"
            say(
                f"{self.path}: {pictures_are} left out, whose names are not img_PPPP_SS.png "
                f"({first_of(others, 2)})"
            )
        return found


def size_of(path: Path) -> int:
    """Bytes of a file; -1 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


def key_named(name: str) -> Key:
    """The image that a file is, by its name as of NAMED."""
    _, prompt, sample = name.partition(".")[0].split("_")
    return Key(int(prompt), int(sample))


def key_of(path: Path) -> Key:
    """The image that a file is about, whose name begins with img_PPPP_SS."""
    _, prompt, sample = path.stem.split("_")
    return Key(int(prompt), int(sample))
