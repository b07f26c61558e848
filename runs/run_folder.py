"""The folder of one run: images by key, what made them, and what is still missing."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from memorization_suite.runs.environment import environment, now
from memorization_suite.runs.files import read_csv, write_bytes, write_csv, write_json

SCHEMA = 1
OWN = (
    "manifest.json",
    "config.json",
    "img_*.png",
    "images.csv",
    "trace.csv",
    "latents",
    ".parts",
    ".*.part",  # what a run writes
    "results.csv",
    "references.csv",
)  # and its scores


@dataclass(frozen=True, order=True)
class Key:
    """An image: row of the prompt file, and which of the prompt's samples."""

    prompt: int
    sample: int

    def __str__(self) -> str:
        return f"{self.prompt:04d}_{self.sample:02d}"


class RunFolder:
    """`img_PPPP_SS.png`, `latents/`, `images.csv`, `trace.csv`, `config.json`, `manifest.json`.

    A batch is saved whole: images first, then its rows in `.parts/`, which mark it as done.
    `publish` puts the rows into the tables.
    """

    own = OWN

    def __init__(self, path: Path):
        self.path = path

    def check(self, identity: dict, *, overwrite: bool = False) -> None:
        """Makes the folder if need be, and changes nothing in it. identity: every setting that
        decides the images' bytes.

        Raises ValueError when the folder cannot be used, or holds another run or other files.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise ValueError(
                f"cannot write to the run folder {self.path}: {error.strerror}. Give another "
                "--output_path."
            ) from error
        if not (self.path / "manifest.json").exists():
            self.check_no_foreign_files()
        elif not overwrite:
            self.check_identity(self.manifest() or {}, identity)

    def start(self, identity: dict, *, config: dict, overwrite: bool = False) -> None:
        """Begins a run in a checked folder, or goes on with it. config: all arguments and the
        command, for people. Raises OSError.
        """
        manifest = None if overwrite else self.manifest()
        if manifest is None:
            self.clear()
            manifest = {
                "schema": SCHEMA,
                "identity": identity,
                "started": now(),
                "environments": [],
            }
        used = environment()
        environments = manifest["environments"] + (
            [used] if used not in manifest["environments"] else []
        )
        write_json(
            self.path / "manifest.json", manifest | {"environments": environments, "finished": None}
        )
        write_json(self.path / "config.json", config)

    def manifest(self) -> dict | None:
        """What is stored of the run, or None. Raises ValueError when it cannot be understood."""
        file = self.path / "manifest.json"
        if not file.exists():
            return None
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
            if (
                manifest["schema"] != SCHEMA
                or not isinstance(manifest["identity"], dict)
                or not isinstance(manifest["environments"], list)
            ):
                raise ValueError(f"no run of schema {SCHEMA}")
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{file} is no manifest of a run ({error}): move the folder away, or make the run "
                "again with --overwrite"
            ) from error
        return manifest

    def check_identity(self, manifest: dict, identity: dict) -> None:
        """Raises ValueError that names what differs."""
        before, after = manifest["identity"], json.loads(json.dumps(identity))
        names = [name for name in sorted(before | after) if before.get(name) != after.get(name)]
        changed = [f"{name}: {before.get(name)!r} there, {after.get(name)!r} now" for name in names]
        if changed:
            raise ValueError(
                f"{self.path} holds another run ({'; '.join(changed)}). Give another "
                "--output_path, or --overwrite to start over."
            )

    def check_no_foreign_files(self) -> None:
        """Raises ValueError when something lies in the folder that no run writes."""
        foreign = sorted(
            entry.name
            for entry in self.path.iterdir()
            if not any(entry.match(pattern) for pattern in self.own)
        )
        if foreign:
            raise ValueError(
                f"{self.path} holds files that are of no run ({foreign[0]}). Give another "
                "--output_path."
            )

    def clear(self) -> None:
        """Removes what a run writes, and nothing else."""
        for pattern in self.own:
            for entry in self.path.glob(pattern):
                if entry.is_dir():
                    shutil.rmtree(entry)
                else:
                    entry.unlink(missing_ok=True)

    # --- images

    def image_path(self, key: Key) -> Path:
        return self.path / f"img_{key}.png"

    def latents_path(self, key: Key) -> Path:
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
        write_bytes(
            self.latents_path(key),
            save({name: tensor.contiguous() for name, tensor in tensors.items()}),
        )

    # --- tables

    def save_rows(self, table: str, rows: list[dict]) -> None:
        """Rows of one batch for `images` or `trace`; save `images` last, it marks the batch as
        done.
        """
        (self.path / ".parts").mkdir(exist_ok=True)
        write_csv(self.path / ".parts" / f"{table}_{rows[0]['key']}.csv", rows)

    def parts(self, table: str) -> list[Path]:
        return sorted((self.path / ".parts").glob(f"{table}_*.csv"))

    def rows(self, table: str) -> list[dict[str, str]]:
        """All rows so far, by key; an image that was made again replaces its old rows."""
        return self.merged([self.path / f"{table}.csv", *self.parts(table)])

    def merged(self, files: list[Path]) -> list[dict[str, str]]:
        """Rows of the files by key; a later file wins."""
        found: dict[str, list[dict[str, str]]] = {}
        for file in files:
            fresh: dict[str, list[dict[str, str]]] = {}
            for row in read_csv(file):
                fresh.setdefault(row["key"], []).append(row)
            found |= fresh
        return [
            row
            for key in sorted(found, key=lambda key: [int(part) for part in key.split("_")])
            for row in found[key]
        ]

    def publish(self, tables: Iterable[str]) -> None:
        """Writes `images.csv` (and `trace.csv`) from all batches so far, and drops the parts that
        are in them now.
        """
        for table in tables:
            parts = self.parts(table)
            if parts:
                write_csv(
                    self.path / f"{table}.csv", self.merged([self.path / f"{table}.csv", *parts])
                )
            for part in parts:
                part.unlink(missing_ok=True)

    def complete(self, *, latents: bool, trace: bool) -> set[Key]:
        """Keys of the images that are whole: picture, row, and what else was asked for."""
        keys = {
            Key(int(row["prompt_index"]), int(row["sample_index"])) for row in self.rows("images")
        }
        if trace:
            keys &= {
                Key(int(row["prompt_index"]), int(row["sample_index"]))
                for row in self.rows("trace")
            }
        return {
            key
            for key in keys
            if self.image_path(key).exists() and (not latents or self.latents_path(key).exists())
        }

    def finish(self, *, images: int, of: int) -> None:
        """Notes the end of a run, and how many of the prompt file's images are there now."""
        if (self.path / ".parts").is_dir() and not any((self.path / ".parts").iterdir()):
            (self.path / ".parts").rmdir()
        write_json(
            self.path / "manifest.json",
            (self.manifest() or {}) | {"finished": now(), "images": images, "of": of},
        )
