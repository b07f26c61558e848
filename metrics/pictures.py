"""Pictures: files that are decoded once, and embedded once by each network."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from memorization_suite.runs import decoding
from memorization_suite.runs.lazy import F, Image, Lazy, np, torch
from memorization_suite.runs.library_warnings import reading
from memorization_suite.runs.pointers import pointer_fault
from memorization_suite.runs.run_folder import NAME, RunFolder
from memorization_suite.runs.weights import Incomplete, Report

safetensors = Lazy("safetensors")


class Unreadable(ValueError):
    """A file that is no whole picture."""


class Picture:
    """An image file. features: name of an embedder -> (d,) float32. finite: False where it was
    made of numbers that are not, so that it shows nothing of its model.
    """

    def __init__(self, path: Path, *, finite: bool = True):
        self.path = path
        self.finite = finite
        self.features: dict[str, torch.Tensor] = {}
        self.decoded: Image.Image | None = None

    @property
    def stored(self) -> Image.Image:
        """The decoded picture in the mode of its file; kept until `release`. Raises Unreadable."""
        if self.decoded is None:
            self.decoded = read_stored(self.path)
        return self.decoded

    @property
    def image(self) -> Image.Image:
        """The same in RGB. Raises Unreadable."""
        return in_rgb(self.stored, self.path)

    def release(self) -> None:
        """Forgets the pixels and the features."""
        self.decoded = None
        self.features.clear()


def read_picture(path: Path) -> Image.Image:
    """The file as an RGB picture. Raises Unreadable."""
    return in_rgb(read_stored(path), path)


def in_rgb(picture: Image.Image, path: Path) -> Image.Image:
    """A file's picture in RGB, itself if it is. Raises Unreadable."""
    with unreadable(path):
        return decoding.in_rgb(picture, path)


def read_stored(path: Path) -> Image.Image:
    """The file as a picture in its own mode, with at most 8 bits a channel. Raises Unreadable."""
    with unreadable(path):
        return decoding.decoded(path)


@contextlib.contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Raises Unreadable, with what to do, for a file that is no picture."""
    try:
        yield
    except decoding.Undecodable as error:
        fault = pointer_fault(path)
        raise Unreadable(fault or f"{error}: {error.mend or remedy(path)}") from error


def remedy(path: Path) -> str:
    """What to do about a file that is no whole picture."""
    command = RunFolder(path.parent).command_again() if NAME.fullmatch(path.name) else ""
    if command and path.suffix == ".png":
        return f"this makes it again: {command} --verify"
    return "put a whole one in its place, or remove it"


class Embedder:
    """A network that turns pictures into vectors.

    A subclass sets `name` and gives `preprocess` and `forward`; its `options` are those here.
    """

    name: str
    unit = True  # scale vectors to length one, so that a product is a cosine
    as_stored = False  # `preprocess` gets pictures in the mode of their file, and not RGB

    def __init__(self, *, device: str = "cpu", batch_size: int = 32):
        self.device = device
        self.batch_size = batch_size

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        """(3, h, w) float32."""
        raise NotImplementedError

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) -> (n, d)."""
        raise NotImplementedError

    def features(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """(n, d) float32 on the CPU. images: one or more, RGB unless `as_stored`."""
        tensors = (self.preprocess(image) for image in images)
        chunks = []
        with torch.inference_mode():
            for batch in equal_shapes(tensors, self.batch_size):
                chunks.append(self.forward(batch.to(self.device)).float().cpu())
            features = torch.cat(chunks)
        return F.normalize(features, dim=1) if self.unit else features

    def embed(self, pictures: Iterable[Picture]) -> None:
        """Gives every picture its features, if it has none of this network yet."""
        fresh = {id(picture): picture for picture in pictures if self.name not in picture.features}
        if not fresh:
            return
        features = self.features([self.image_of(picture) for picture in fresh.values()])
        for picture, row in zip(fresh.values(), features):
            picture.features[self.name] = row

    def image_of(self, picture: Picture) -> Image.Image:
        """What is embedded of a picture."""
        return picture.stored if self.as_stored else picture.image

    def matrix(self, pictures: Sequence[Picture]) -> torch.Tensor:
        """(n, d): features of pictures that were embedded."""
        return torch.stack([picture.features[self.name] for picture in pictures])


@contextlib.contextmanager
def loading(path: Path, what: str) -> Iterator[None]:
    """Raises ValueError that names the file when its content is not what is loaded from it, and
    the tensors that a network lacks.
    """
    faults = (RuntimeError, KeyError, AttributeError, EOFError, pickle.UnpicklingError)
    try:
        with reading(path):
            yield
    except (*faults, safetensors.SafetensorError) as error:
        report = Report.of_error(error)
        if report is not None:
            raise Incomplete(f"{path} is no whole {what}: it {report.fault()}") from error
        is_empty = path.is_file() and not path.stat().st_size
        reason = "it is empty" if is_empty else first_sentence(error)
        raise ValueError(f"{path} cannot be loaded as {what}: {reason}") from error


def first_sentence(error: BaseException) -> str:
    """What a library says first; one that says nothing is named by its kind."""
    first = (str(error).strip().splitlines() or [""])[0].split(". ")[0]
    return first or type(error).__name__


def read_mask(path: Path) -> torch.Tensor:
    """(h, w) float32 in [0, 1] of a gray picture.

    Raises ValueError when it is none, or marks nothing (all 0.5 or less).
    """
    gray = Picture(path).image.convert("L")
    mask = torch.from_numpy(np.array(gray)).float() / 255
    if mask.max() <= 0.5:
        raise ValueError(f"the mask {path} marks nothing: it is black everywhere")
    return mask


def equal_shapes(tensors: Iterable[torch.Tensor], size: int) -> Iterator[torch.Tensor]:
    """Batches of at most `size` neighbors of the same shape, in order."""
    batch: list[torch.Tensor] = []
    for tensor in tensors:
        if batch and (len(batch) == size or batch[0].shape != tensor.shape):
            yield torch.stack(batch)
            batch = []
        batch.append(tensor)
    if batch:
        yield torch.stack(batch)
