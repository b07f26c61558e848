"""A folder of generated images, checked against its prompt file, prompt by prompt."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from memorization_suite import ROOT
from memorization_suite.metrics.pictures import Picture
from memorization_suite.metrics.references import INDEX, References
from memorization_suite.prompts.files import Prompt, read_prompts, sha256_of
from memorization_suite.runs import Key, RunFolder

NAME = re.compile(r"img_(\d+)_(\d+)\.(png|jpg)")
EMBEDDED = ROOT / "tiny"


@dataclass(frozen=True)
class Group:
    """The images of one prompt, its references, and the mask of what was memorized, where that is
    known.
    """

    prompt: Prompt
    samples: list[int]
    pictures: list[Picture]
    references: list[Picture]
    mask: Path | None = None


@dataclass(frozen=True)
class Run:
    """A checked run. files: every image to be scored."""

    folder: Path
    prompts_file: Path
    prompts: list[Prompt]
    files: dict[Key, Path]
    model_id: str

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def method(self) -> str:
        return self.folder.parent.name

    @property
    def prompts_scored(self) -> set[int]:
        """Rows of the prompts that have images."""
        return {key.prompt for key in self.files}

    @property
    def embedded(self) -> bool:
        """Whether an embedded model made it: references and masks lie in tiny/."""
        return self.model_id in ("tiny", "tiny-v")

    def groups(
        self, references: References, masks: Path | None = None, images: int = 64
    ) -> Iterator[list[Group]]:
        """Chunks of prompts with about so many images, decoded side by side; pixels are forgotten
        with the chunk.

        Raises Unreadable for a generated image that is not whole.
        """
        by_prompt: dict[int, list[Key]] = {}
        for key in sorted(self.files):
            by_prompt.setdefault(key.prompt, []).append(key)
        size = max(1, images * len(by_prompt) // max(1, len(self.files)))
        rows = list(by_prompt)
        for first in range(0, len(rows), size):
            chunk = [
                self.group(by_prompt[row], references, masks) for row in rows[first : first + size]
            ]
            with ThreadPoolExecutor(4) as pool:
                list(
                    pool.map(
                        lambda picture: picture.image,
                        (picture for group in chunk for picture in group.pictures),
                    )
                )
            yield chunk
            for picture in (
                picture for group in chunk for picture in group.pictures + group.references
            ):
                picture.release()

    def group(self, keys: list[Key], references: References, masks: Path | None) -> Group:
        """One prompt, not decoded yet."""
        prompt = self.prompts[keys[0].prompt]
        mask = masks / f"{prompt.index}.png" if masks and INDEX.fullmatch(prompt.index) else None
        return Group(
            prompt,
            [key.sample for key in keys],
            [Picture(self.files[key]) for key in keys],
            references.of(prompt),
            mask if mask and mask.exists() else None,
        )


def open_run(
    folder: Path,
    prompts: Path | None = None,
    *,
    num_samples: int | None = None,
    incomplete: bool = False,
    flag: str = "--gen_folder",
) -> Run:
    """Finds and checks what is to be scored. prompts: default is the file that the run names.

    num_samples: only the first so many images of each prompt. incomplete: score what a run that was
    stopped has. Raises ValueError for a folder without images, with foreign ones, of another prompt
    file, or that is not finished.
    """
    if not folder.is_dir():
        raise ValueError(f"{flag} {folder} is no folder")
    folder = folder.resolve()
    manifest, config, keys = RunFolder(folder).manifest(), config_of(folder), keys_of(folder)
    if prompts is None and "prompts" not in config:
        raise ValueError(
            f"{folder} does not say which prompt file it was made from: give --prompts"
        )
    file = Path(prompts or config["prompts"])
    if prompts is None and not file.is_file():
        raise ValueError(
            f"the prompt file {file} that {folder} was made from is not here: give it with "
            "--prompts"
        )
    table = read_prompts(file)
    if manifest and manifest["identity"].get("prompts_sha256") not in (None, sha256_of(file)):
        raise ValueError(
            f"{folder} was made from another prompt file than {file} (its hash differs): images "
            "would meet wrong captions"
        )
    outside = sorted(key for key in keys if key.prompt >= len(table))
    if outside:
        raise ValueError(
            f"{folder} has img_{outside[0]}.png, but {file} has only {len(table)} prompts: is it "
            "the prompt file of another run?"
        )
    if not incomplete:
        check_complete(folder, keys, manifest, num_samples=num_samples)
    chosen = {
        key: path for key, path in keys.items() if num_samples is None or key.sample < num_samples
    }
    return Run(folder, file, table, chosen, str(config.get("model_id", "")))


def unlike(first: Path, second: Path) -> str:
    """Why images of two runs cannot be compared one by one: another seed, prompt file, size or way
    of drawing noise; empty when they can.
    """
    manifests = [RunFolder(folder).manifest() for folder in (first, second)]
    a, b = ((manifest or {}).get("identity", {}) for manifest in manifests)
    of_one_stream = (
        ("batch_size", "n_samples_per_prompt", "dtype", "device")
        if a.get("rng") == "official"
        else ()
    )
    names = ("seed", "rng", "prompts_sha256", "image_length", *of_one_stream)
    differing = [
        f"{name} {a[name]} and {b[name]}"
        for name in names
        if name in a and name in b and a[name] != b[name]
    ]
    return (
        f"{first} and {second} are not of equal seeds and prompts ({'; '.join(differing)})"
        if differing
        else ""
    )


def config_of(folder: Path) -> dict:
    """What config.json says of the run; nothing if there is none. Raises ValueError when it cannot
    be understood.
    """
    file = folder / "config.json"
    if not file.exists():
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} is no configuration of a run ({error})") from error


def keys_of(folder: Path) -> dict[Key, Path]:
    """Images by key. Raises ValueError when there are none, or a PNG that is no image of a run."""
    found = {}
    for path in sorted([*folder.glob("*.png"), *folder.glob("*.jpg")]):
        match = NAME.fullmatch(path.name)
        if not match:
            raise ValueError(
                f"{path} is no image of a run, whose names are img_PPPP_SS.png: move it elsewhere"
            )
        key = Key(int(match[1]), int(match[2]))
        if key in found:
            raise ValueError(
                f"{path} and {found[key].name} are both image {key}: move one elsewhere"
            )
        found[key] = path
    if not found:
        raise ValueError(
            f"{folder} has no images img_PPPP_SS.png. Is it a run folder "
            "(<output_path>/<method>/<settings>_seed<seed>)?"
        )
    return found


def check_complete(
    folder: Path, keys: dict[Key, Path], manifest: dict | None, *, num_samples: int | None = None
) -> None:
    """Raises ValueError when the run was stopped, or some prompt has fewer images than it
    should.
    """
    wanted = (
        num_samples
        or (manifest or {}).get("identity", {}).get("n_samples_per_prompt")
        or 1 + max(key.sample for key in keys)
    )
    missing = sorted(
        key
        for prompt in {key.prompt for key in keys}
        for key in (Key(prompt, k) for k in range(wanted))
        if key not in keys
    )
    if manifest and not manifest.get("finished"):
        raise ValueError(
            f"the run {folder} is not finished: give its command again, or --incomplete to score "
            f"the {len(keys)} images that are there"
        )
    if missing:
        raise ValueError(
            f"{folder} lacks {len(missing)} images of {wanted} a prompt, first "
            f"img_{missing[0]}.png: "
            "finish the run, give a smaller --num_samples, or --incomplete"
        )
    made = (manifest or {}).get("images", 0)
    if num_samples is None and made > len(keys):
        raise ValueError(
            f"{folder} lacks {made - len(keys)} of the {made} images that the run made: give its "
            "command again, or --incomplete"
        )
