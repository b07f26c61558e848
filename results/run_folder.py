"""The folder of one run: images by key, what made them, and what is still missing."""
from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from results.environment import environment, now
from results.files import read_csv, write_bytes, write_csv, write_json

SCHEMA = 1


@dataclass(frozen=True, order=True)
class Key:
    """An image: row of the prompt file, and which of the prompt's samples."""

    prompt: int
    sample: int

    def __str__(self) -> str:
        return f"{self.prompt:04d}_{self.sample:02d}"


class RunFolder:
    """`img_PPPP_SS.png`, `latents/`, `images.csv`, `trace.csv`, `config.json`, `manifest.json`.

    A batch is saved whole: images first, then its rows in `.parts/`, which mark it as done. `publish` puts the rows into the tables.
    """

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def open(cls, path: Path, identity: dict, *, config: dict, overwrite: bool = False) -> RunFolder:
        """Makes the folder, or goes on with one of the same identity (every setting that decides the images' bytes).

        config: all arguments and the command, for people.
        Raises ValueError when the path cannot be used or holds another run.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            write_bytes(path / ".writable", b"")
            (path / ".writable").unlink()
        except OSError as error:
            raise ValueError(f"cannot write to the run folder {path}: {error.strerror}. Give another --output_path.") from error
        folder = cls(path)
        if overwrite:
            folder.clear()
        folder.check_identity(identity)
        manifest = folder.manifest() or {"schema": SCHEMA, "identity": identity, "started": now()}
        write_json(path / "config.json", config)
        write_json(path / "manifest.json", manifest | {"environment": environment(), "finished": None})
        return folder

    def manifest(self) -> dict | None:
        """What is stored of the run, or None."""
        file = self.path / "manifest.json"
        try:
            return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
        except ValueError as error:
            raise ValueError(f"{file} is not readable as JSON ({error}). Use --overwrite to start over.") from error

    def check_identity(self, identity: dict) -> None:
        manifest = self.manifest()
        if manifest is None:
            foreign = [entry.name for entry in self.path.iterdir()]
            if foreign:
                raise ValueError(f"{self.path} holds files that are no run ({foreign[0]}, ...). Give another --output_path, or --overwrite.")
            return
        before, after = manifest.get("identity", {}), json.loads(json.dumps(identity))
        names = [name for name in sorted(before | after) if before.get(name) != after.get(name)]
        changed = [f"{name}: {before.get(name)!r} there, {after.get(name)!r} now" for name in names]
        if changed:
            raise ValueError(f"{self.path} holds another run ({'; '.join(changed)}). Give another --output_path, or --overwrite to start over.")

    def clear(self) -> None:
        """Removes what a run writes, and nothing else."""
        for pattern in ("img_*.png", "images.csv", "trace.csv", "config.json", "manifest.json", ".*.part"):
            for file in self.path.glob(pattern):
                file.unlink()
        for folder in ("latents", ".parts"):
            shutil.rmtree(self.path / folder, ignore_errors=True)

    # --- images ---------------------------------------------------------------------------------------------------------------

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
        write_bytes(self.latents_path(key), save({name: tensor.contiguous() for name, tensor in tensors.items()}))

    # --- tables ---------------------------------------------------------------------------------------------------------------

    def save_rows(self, table: str, batch: int, rows: list[dict]) -> None:
        """Rows of one batch for `images` or `trace`; save `images` last, it marks the batch as done."""
        (self.path / ".parts").mkdir(exist_ok=True)
        write_csv(self.path / ".parts" / f"{table}_{batch:06d}.csv", rows)

    def rows(self, table: str) -> list[dict[str, str]]:
        """All rows so far, by key; a batch that was made again replaces its old rows."""
        found: dict[str, list[dict[str, str]]] = {}
        parts = sorted((self.path / ".parts").glob(f"{table}_*.csv"))
        for file in [self.path / f"{table}.csv", *parts]:
            fresh: dict[str, list] = {}
            for row in read_csv(file):
                fresh.setdefault(row["key"], []).append(row)
            found |= fresh
        return [row for key in sorted(found) for row in found[key]]

    def publish(self, tables: Iterable[str]) -> None:
        """Writes `images.csv` (and `trace.csv`) from all batches so far. For one process, between batches or at the end."""
        for table in tables:
            rows = self.rows(table)
            if rows:
                write_csv(self.path / f"{table}.csv", rows)

    def complete(self, *, latents: bool, trace: bool) -> set[Key]:
        """Keys of the images that are whole: picture, row, and what else was asked for."""
        keys = {Key(int(row["prompt_index"]), int(row["sample_index"])) for row in self.rows("images")}
        if trace:
            keys &= {Key(int(row["prompt_index"]), int(row["sample_index"])) for row in self.rows("trace")}
        return {key for key in keys if self.image_path(key).exists() and (not latents or self.latents_path(key).exists())}

    def finish(self) -> None:
        """Drops the batches' parts, which are in the tables now, and notes the end of the run."""
        shutil.rmtree(self.path / ".parts", ignore_errors=True)
        write_json(self.path / "manifest.json", (self.manifest() or {}) | {"finished": now()})
