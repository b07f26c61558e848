"""A folder of generated images, checked against its prompt file, prompt by prompt."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memorization_suite import tiny
from memorization_suite.download.assets import path_of
from memorization_suite.metrics.listing import composed, masks_of
from memorization_suite.metrics.manifests import told_by
from memorization_suite.metrics.pictures import Picture
from memorization_suite.metrics.references import References
from memorization_suite.prompts.files import Prompt, read_prompts
from memorization_suite.prompts.sets import prompt_file
from memorization_suite.runs import Key, RunFolder
from memorization_suite.runs.batches import Row
from memorization_suite.runs.foreign import above, method_of, title_of, unknown
from memorization_suite.runs.hashes import content_hash
from memorization_suite.runs.marks import Marks
from memorization_suite.runs.notices import say
from memorization_suite.runs.shards import WHOLE, Shard
from memorization_suite.runs.text import counted
from memorization_suite.runs.whole import told

GROUND_TRUTH = Path("sdv1_500_mem_groundtruth/gt_images")
CHUNK = 64  # images that are decoded at once, about
# What makes images of equal seeds differ beside the method, and is told by no folder's name.
OF_MODEL = ("model_id", "unet_id", "scheduler", "num_inference_steps")
# With --rng official all images are drawn from one stream, in batches.
OF_ONE_STREAM = ("batch_size", "n_samples_per_prompt", "dtype", "device")


@dataclass(frozen=True)
class Group:
    """The images of one prompt that are finite."""

    prompt: Prompt
    # The sample of each picture.
    samples: list[int]
    pictures: list[Picture]
    # Its training images.
    references: list[Picture]
    # White where the prompt's image was memorized, where that is known.
    mask: Path | None = None
    # The images of equal seeds of the run to compare with, also those that are not finite; nothing
    # without one.
    unmitigated: list[Picture] = field(default_factory=list)

    @property
    def every_picture(self) -> list[Picture]:
        """Its own and those that they are compared with."""
        return self.pictures + self.references + self.unmitigated


@dataclass(frozen=True)
class Run:
    """A checked run."""

    folder: Path
    prompts_file: Path
    # All prompts of that file.
    prompts: list[Prompt]
    # Every image that was asked for.
    files: dict[Key, Path]
    model_id: str
    # The prompt of every image in the folder, also of those that are not scored.
    of_images: list[int] = field(default_factory=list)
    # Images that are not finite: they are left out of every score.
    not_finite: frozenset[Key] = frozenset()

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def method(self) -> str:
        return method_of(self.folder)

    @property
    def title(self) -> str:
        """Its method and settings, as its folder is called."""
        return title_of(self.folder)

    @property
    def prompts_scored(self) -> set[int]:
        """Rows of the prompts that have images."""
        return {key.prompt for key in self.files}

    @property
    def embedded(self) -> bool:
        """Whether an embedded model made it."""
        return self.model_id in tiny.MODELS

    @property
    def gt_folder(self) -> Path:
        """Where the training images of its prompts are, if nobody names another folder."""
        if self.embedded:
            return tiny.GT_IMAGES
        return GROUND_TRUTH if GROUND_TRUTH.is_dir() else path_of("sdv1_500_mem_groundtruth")

    @property
    def masks(self) -> Path | None:
        """Where the masks of its prompts are, if nobody names another folder."""
        return tiny.MASKS if self.embedded else None

    def groups(
        self,
        references: References,
        masks: Path | None = None,
        unmitigated: Run | None = None,
        shard: Shard = WHOLE,
    ) -> Iterator[tuple[int, list[Group]]]:
        """Chunks of prompts with their numbers; pixels are forgotten with the chunk. A prompt
        without a finite image has no pictures.

        unmitigated: a run that has every image of this one. shard: only its chunks. Raises
        Unreadable for a generated image that is not whole.
        """
        of_names = masks_of(masks) if masks else {}
        for number, chunk in enumerate(self.chunks()):
            if not shard.has(number):
                continue
            groups = [self.group(keys, references, of_names, unmitigated) for keys in chunk]
            decode([picture for group in groups for picture in group.pictures])
            yield number, groups
            for group in groups:
                for picture in group.every_picture:
                    picture.release()

    def chunks(self) -> list[list[list[Key]]]:
        """The keys of each prompt, in chunks of prompts with about CHUNK images."""
        by_prompt: dict[int, list[Key]] = {}
        for key in sorted(self.files):
            by_prompt.setdefault(key.prompt, []).append(key)
        size = max(1, CHUNK * len(by_prompt) // max(1, len(self.files)))
        prompts = list(by_prompt.values())
        return [prompts[first : first + size] for first in range(0, len(prompts), size)]

    def group(
        self,
        keys: list[Key],
        references: References,
        masks: Mapping[str, Path],
        unmitigated: Run | None,
    ) -> Group:
        """One prompt, not decoded yet. masks: Index -> file."""
        prompt = self.prompts[keys[0].prompt]
        keys = [key for key in keys if key not in self.not_finite]
        mask = masks.get(composed(prompt.index)) if prompt.index else None
        return Group(
            prompt,
            samples=[key.sample for key in keys],
            pictures=[self.picture(key) for key in keys],
            references=references.of(prompt, mask),
            mask=mask,
            unmitigated=[unmitigated.picture(key) for key in keys] if unmitigated else [],
        )

    def picture(self, key: Key) -> Picture:
        """One image, not decoded yet."""
        return Picture(self.files[key], finite=key not in self.not_finite)


def decode(pictures: list[Picture]) -> None:
    """Decodes them side by side. Raises Unreadable."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda picture: picture.image, pictures))


def open_run(
    folder: Path,
    prompts: Path | None = None,
    *,
    column: str = "",
    num_samples: int | None = None,
    incomplete: bool = False,
    flag: str = "--gen_folder",
    names: Collection[str] | None = None,
) -> Run:
    """Finds and checks what is to be scored. prompts: default is the file that the run names; a
    data set by name is one, too. column: of its captions; default is the run's.

    num_samples: only the first so many images of each prompt. incomplete: score what a run that was
    stopped has. names: in the folder, where they were listed already. A run whose images are all
    there, but whose last process ended before it said so, is closed now. Raises ValueError for a
    folder without images, with foreign ones, of another prompt file, or that is not finished.
    """
    if not folder.is_dir():
        raise ValueError(f"{flag} {folder} is no folder")
    store = RunFolder(folder.resolve())
    store.close_if_whole()
    identity = (store.manifest() or {}).get("identity", {})
    config = store.config()
    images = store.images(names)
    of_images = [key.prompt for key in images]
    rows = store.costs()
    if prompts is not None:
        file = prompt_file(str(prompts), above(store.path), column)
    else:
        file = named_prompts(store.path, config)
    of_run = str(config.get("caption_column", ""))
    table = read_prompts(file, column or of_run, needed=bool(column))
    of_file = identity.get("prompts_sha256")
    if of_file and (of_file != content_hash(file) or column not in ("", of_run)):
        check_captions(store, rows, file, table)
    outside = sorted(key for key in images if key.prompt >= len(table))
    if outside:
        raise ValueError(
            f"{store.path} has img_{outside[0]}.png, but {file} has only {len(table)} prompts: is "
            "it the prompt file of another run?"
        )
    if not incomplete:
        check_complete(store, images, rows, num_samples=num_samples)
    if store.is_foreign():
        say(f"{store.path}: {unknown(config)}")
    if num_samples is not None:
        images = {key: path for key, path in images.items() if key.sample < num_samples}
    return Run(
        store.path,
        file,
        table,
        images,
        model_id=str(config.get("model_id", "")),
        of_images=of_images,
        not_finite=Marks.of(rows, images).not_finite,
    )


def check_captions(
    store: RunFolder, rows: Mapping[Key, Row], file: Path, prompts: list[Prompt]
) -> None:
    """Raises ValueError when a prompt file that has changed has other captions than the run's.

    Its other columns may have changed: training images are often named after the run. rows: of
    images.csv.
    """
    made_for = {key.prompt: row.get("prompt") for key, row in rows.items()}
    now = {prompt.row: prompt.caption for prompt in prompts}
    other = [row for row, caption in made_for.items() if now.get(row) != caption]
    if other or not made_for:
        where = f"prompt {other[0]} is not" if other else "images.csv does not tell"
        raise ValueError(
            f"{store.path} was made from another prompt file than {file}: {where} the caption of "
            "its images"
        )


def named_prompts(folder: Path, config: dict) -> Path:
    """The prompt file that the run names. Raises ValueError when it names none, or it is gone."""
    if "prompts" not in config:
        raise ValueError(
            f"{folder} does not say which prompt file it was made from: give --prompts"
        )
    file = Path(str(config["prompts"]))
    if not file.is_file():
        raise ValueError(
            f"the prompt file {file} that {folder} was made from is not here: give it with "
            "--prompts"
        )
    return file


def unlike(first: Path, second: Path) -> str:
    """Why images of two runs cannot be compared one by one; empty when they can.

    They cannot with another seed, prompt file, size or way of drawing noise.
    """
    runs = [told_by(folder) for folder in (first, second)]
    a, b = (run.identity for run in runs)
    names = ["seed", "rng", "prompts_sha256", "image_length"]
    if a.get("rng") == "official":
        names += OF_ONE_STREAM
    differing = []
    for name in names:
        if name in a and name in b and a[name] != b[name]:
            typed = [run.config.get("prompts") for run in runs]
            if name == "prompts_sha256" and typed[0] != typed[1]:
                differing.append(f"prompts {typed[0]} and {typed[1]}")
            else:
                differing.append(f"{name} {a[name]} and {b[name]}")
    if not differing:
        return ""
    return f"{first} and {second} are not of equal seeds and prompts ({'; '.join(differing)})"


def made_otherwise(first: Path, second: Path) -> dict[str, Any]:
    """Name -> the second run's value, of what of its model and sampler is not the first one's.

    What only one of them tells is not compared, nor a hash with what was written without one.
    """
    runs = [told_by(folder) for folder in (first, second)]
    a, b = (run.identity for run in runs)
    both = [name for name in OF_MODEL if name in a and name in b]
    otherwise = {name: b[name] for name in both if not may_be_same(a[name], b[name])}
    if runs[0].scheduler == runs[1].scheduler:  # one was typed, and the other is the model's own
        otherwise.pop("scheduler", None)
    return otherwise


def may_be_same(first: object, second: object) -> bool:
    """Whether two values of an identity may mean the same."""
    if not isinstance(first, str) or not isinstance(second, str):
        return first == second
    hashed = [text.startswith("sha256 ") for text in (first, second)]
    name, _, commit = first.partition("@")
    other_name, _, other_commit = second.partition("@")
    is_open = name == other_name and not (commit and other_commit)
    return first == second or hashed[0] != hashed[1] or is_open


def check_equal(run: Run, unmitigated: Run) -> None:
    """Raises ValueError when the unmitigated run lacks an image, or was made with another seed or
    other prompts.
    """
    problem = unlike(run.folder, unmitigated.folder)
    if problem:
        raise ValueError(f"--unmitigated: {problem}")
    missing = sorted(set(run.files) - set(unmitigated.files))
    if missing:
        raise ValueError(
            f"--unmitigated {unmitigated.folder} has no img_{missing[0]}.png: it must have "
            f"every image of {run.folder}"
        )


def check_whole(store: RunFolder, images: dict[Key, Path], rows: Mapping[Key, Row]) -> None:
    """Raises ValueError when one of the images is damaged, as far as sizes and ends of files tell.
    Others are found when they are decoded. rows: of images.csv.
    """
    if store.manifest() is not None and (unknown := sorted(images.keys() - rows.keys())):
        raise ValueError(
            f"{store.path}: images.csv has no row of {counted(len(unknown), 'image')}, first "
            f"img_{unknown[0]}.png, so that nobody knows whether it is finite; {again(store)}"
        )
    names = {key: path.name for key, path in images.items()}
    faults = store.picture_faults(names, {key: [row] for key, row in rows.items()})
    if faults:
        raise ValueError(f"{store.path}: {told(faults, store.path)}; {again(store)}")


def again(store: RunFolder) -> str:
    """What to type for the images that a run lacks."""
    command = store.command_again()
    return f"give its command again: {command}" if command else "give its command again"


def check_complete(
    store: RunFolder,
    images: dict[Key, Path],
    rows: Mapping[Key, Row],
    *,
    num_samples: int | None = None,
) -> None:
    """Raises ValueError when the run was stopped, a prompt has fewer images than it should, or one
    is damaged. rows: of images.csv.
    """
    manifest = store.manifest() or {}
    if manifest and not manifest.get("finished"):
        raise ValueError(
            f"the run {store.path} is not finished: --incomplete scores the {len(images)} images "
            f"that are there; {again(store)}"
        )
    asked = num_samples or manifest.get("identity", {}).get("n_samples_per_prompt")
    wanted = asked or 1 + max(key.sample for key in images)
    prompts = {key.prompt for key in images}
    missing = {Key(row, sample) for row in prompts for sample in range(wanted)} - set(images)
    if missing:
        raise ValueError(
            f"{store.path} lacks {len(missing)} images of {wanted} a prompt, first "
            f"img_{min(missing)}.png: "
            "finish the run, give a smaller --num_samples, or --incomplete"
        )
    made = manifest.get("images", 0)
    if num_samples is None and made > len(images):
        raise ValueError(
            f"{store.path} lacks {made - len(images)} of the {made} images that the run made: "
            f"--incomplete scores the others; {again(store)}"
        )
    scored = {key: path for key, path in images.items() if key.sample < wanted}
    check_whole(store, scored, rows)
