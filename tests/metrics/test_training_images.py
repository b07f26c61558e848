"""Training images of every format that Pillow reads, under every name: what they become, and what
is said of them. The values are those of a plain reading in loops.
"""

import unicodedata

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from PIL.PngImagePlugin import PngInfo

from memorization_suite.metrics.listing import images_of, masks_of
from memorization_suite.metrics.pictures import Unreadable, read_mask, read_picture
from memorization_suite.metrics.references import References
from memorization_suite.metrics.runs import open_run
from memorization_suite.prompts.files import Prompt
from memorization_suite.runs.decoding import TEXTS, Undecodable, in_rgb
from memorization_suite.runs.library_warnings import heard
from memorization_suite.runs.nobodys import is_nobodys, owned
from tests.metrics.conftest import picture

RED, GREEN, BLUE = (250, 10, 20), (10, 240, 30), (20, 30, 230)
NOBODYS = [
    ".DS_Store",
    "._0.png",
    "Thumbs.db",
    "THUMBS.DB",
    "desktop.ini",
    "@eaDir",
    "__MACOSX",
    ".nfs000000000012ab",
    ".Trash-1000",
    "~$scores.csv",
    ".~lock.results.csv#",
]


def plain(color, size=(6, 4)) -> Image.Image:
    return Image.new("RGB", size, color)


def gray(values: np.ndarray, path) -> np.ndarray:
    """What is read of a gray picture of these numbers: one channel; the three are alike."""
    Image.fromarray(values).save(path)
    read = np.asarray(read_picture(path))
    assert (read == read[..., :1]).all()
    return read[..., 0]


# --- more than 8 bits


@pytest.mark.parametrize("ending", ["png", "tif", "pgm", "jp2"])
def test_16_bits_of_gray_become_the_upper_8(tmp_path, ending):
    values = np.linspace(0, 65535, 48, dtype=np.uint16).reshape(6, 8)
    found = gray(values, tmp_path / f"a.{ending}")
    for y in range(6):
        for x in range(8):
            assert found[y, x] == values[y, x] // 256


def test_16_bits_in_either_order_of_bytes(tmp_path):
    values = (np.arange(24).reshape(4, 6) * 2700).astype(">u2")
    image = Image.frombytes("I;16B", (6, 4), values.tobytes())
    image.save(tmp_path / "a.tif")
    assert (np.asarray(read_picture(tmp_path / "a.tif"))[..., 0] == values // 256).all()


def png_of_16_bits(values: np.ndarray) -> bytes:
    """A PNG of (h, w, 3) numbers, which Pillow does not write."""
    import struct
    import zlib

    height, width, _ = values.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_16_bits_of_color_are_read_alike(tmp_path):
    values = np.linspace(0, 65535, 60).astype(np.uint16).reshape(4, 5, 3)
    (tmp_path / "a.png").write_bytes(png_of_16_bits(values))
    assert (np.asarray(read_picture(tmp_path / "a.png")) == values // 256).all()


def test_floating_point_numbers(tmp_path):
    values = np.linspace(0, 1, 24, dtype=np.float32).reshape(4, 6)
    assert (gray(values, tmp_path / "a.tif") == np.rint(values * 255)).all()
    assert (gray(values * 255, tmp_path / "b.tiff") == np.rint(values * 255)).all()
    for name, wrong in {"c": values * 900, "d": values - 0.5, "e": values * np.nan}.items():
        with pytest.raises(Unreadable, match=r"has values from .* white is not known"):
            gray(wrong, tmp_path / f"{name}.tif")


def test_32_bits(tmp_path):
    values = np.arange(24, dtype=np.int32).reshape(4, 6)
    assert (gray(values * 10, tmp_path / "a.tif") == values * 10).all()
    assert (gray(values * 2700, tmp_path / "b.tif") == values * 2700 // 256).all()
    with pytest.raises(Unreadable, match="save it with 8 or 16 bits"):
        gray(values * 5000, tmp_path / "c.tif")


def test_a_mask_of_16_bits_or_another_format(tmp_path):
    mask = np.zeros((4, 6), np.uint16)
    mask[:2] = 65535
    for name in ("100.png", "101.TIF"):
        Image.fromarray(mask).save(tmp_path / name)
        assert (read_mask(tmp_path / name).numpy() == (mask > 0)).all()
    plain(RED).save(tmp_path / "100.bmp")
    assert masks_of(tmp_path) == {"100": tmp_path / "100.png", "101": tmp_path / "101.TIF"}


# --- colors, frames, rotations


@pytest.mark.parametrize("ending", ["jpg", "tif"])
def test_inks_become_the_colors_that_pillow_makes_of_them(tmp_path, ending):
    """JPEG keeps them inverted, as Adobe does."""
    path = tmp_path / f"a.{ending}"
    inks = picture(3).convert("CMYK")
    inks.save(path, **({"quality": 100} if ending == "jpg" else {}))
    difference = np.asarray(read_picture(path)).astype(int) - np.asarray(inks.convert("RGB"))
    assert abs(difference).max() <= (12 if ending == "jpg" else 0)


def test_a_palette_with_alpha_has_its_colors(tmp_path):
    """The official scripts convert to RGB, which drops alpha."""
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putdata([0, 1])
    image.save(tmp_path / "a.png", transparency=bytes([0, 255]))
    assert read_picture(tmp_path / "a.png").tobytes() == bytes([*RED, *BLUE])


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tif"])
def test_the_first_picture_of_several(tmp_path, capsys, ending):
    path = tmp_path / f"a.{ending}"
    lossless = {"lossless": True} if ending == "webp" else {}
    plain(RED).save(path, save_all=True, append_images=[plain(GREEN), plain(BLUE)], **lossless)
    with heard():
        assert set(read_picture(path).getdata()) == {RED}
    assert capsys.readouterr().err == f"{path} has 3 pictures: the first one is read\n"


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_a_turned_picture_is_read_as_it_is_stored(tmp_path, capsys, ending):
    """As the official scripts read it, and a line says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / f"a.{ending}"
    plain(RED, (6, 4)).save(path, exif=exif)
    with heard():
        assert read_picture(path).size == (6, 4)
        read_picture(path)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{path} is stored turned (EXIF orientation 6)") and "upright" in line


def test_pillow_turns_a_tiff_by_itself(tmp_path, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6
    plain(RED, (6, 4)).save(tmp_path / "a.tif", exif=exif)
    with heard():
        assert read_picture(tmp_path / "a.tif").size == (4, 6)
    assert capsys.readouterr().err == ""


def test_colors_that_are_not_turned_into_rgb(tmp_path):
    """A mode that no file here has, but Pillow knows."""
    with pytest.raises(Undecodable, match=r"a.tif has colors \(La\) that Pillow does not turn"):
        in_rgb(Image.new("La", (6, 4)), tmp_path / "a.tif")


# --- sizes


def with_texts(path, *sizes: int) -> None:
    texts = PngInfo()
    for number, size in enumerate(sizes):
        texts.add_text(f"prompt {number}", "x" * size, zip=True)
    picture(1).save(path, pnginfo=texts)


def test_long_texts_in_a_png(tmp_path):
    with_texts(tmp_path / "a.png", 3_000_000, 5_000_000)
    assert read_picture(tmp_path / "a.png").tobytes() == picture(1).tobytes()
    assert PngImagePlugin.MAX_TEXT_CHUNK == TEXTS
    with_texts(tmp_path / "b.png", TEXTS // 2, TEXTS // 2 + 2)
    with pytest.raises(Unreadable, match="text"):
        read_picture(tmp_path / "b.png")


def test_a_very_large_picture(tmp_path, monkeypatch, capsys):
    """Up to twice what Pillow warns of it is read, in silence."""
    plain(RED, (30, 20)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    with heard():
        assert read_picture(tmp_path / "a.png").size == (30, 20)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 250)
    with pytest.raises(Unreadable, match="a.png has more than 500 pixels.*: make it smaller"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("ending", ["png", "jpg", "gif", "webp", "tif", "bmp"])
def test_broken_files_are_named(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    picture(1, (64, 64)).save(path)
    whole = path.read_bytes()
    for content, told in [(b"", "it is empty"), (b"no picture", "its format"), (whole[:300], "")]:
        path.write_bytes(content)
        with pytest.raises(Unreadable, match=f"a.{ending} is no whole picture .*{told}"):
            read_picture(path)


# --- names


def test_names_that_are_nobodys():
    assert all(map(is_nobodys, NOBODYS)) and owned(NOBODYS) == []
    names = ["0.png", ".0.png", "_.png", "Thumbs.db.png", "manifest.json", ".parts", "nfs", "a~"]
    assert owned(names) == names


NAMES = [
    "a.PNG",
    "b c.JPeG",
    "\u00e9\u4e2d.tiff",
    "no_ending",
    "f.jpg?width=200",
    "g.avif",
    "h.ico",
]


def test_every_picture_of_a_folder_is_found(tmp_path):
    kinds = dict(zip(NAMES, ["PNG", "JPEG", "TIFF", "PNG", "JPEG", "AVIF", "ICO"]))
    for name, kind in kinds.items():
        picture(1).save(tmp_path / name, format=kind)
    for name in ("notes.txt", "a.json", "film.mpg", "a.png.part", "BMW"):
        (tmp_path / name).write_text("BM a text")
    for name in NOBODYS:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in images_of(tmp_path)] == sorted(NAMES)
    assert images_of(tmp_path / "nowhere") == images_of(tmp_path / "a.PNG") == []


@pytest.mark.parametrize(
    "index", ["a b", "Ann's, #1 (new)", "\u4e2d\u6587", "Caf\u00e9", "x" * 200]
)
def test_an_index_is_any_name_of_a_folder(tmp_path, index):
    """Also one whose accents are letters of their own on the disk, or in the prompt file."""
    for form in ("NFC", "NFD"):
        folder = tmp_path / form / unicodedata.normalize(form, index)
        folder.mkdir(parents=True)
        picture(1).save(folder / "0.png")
        for spelled in ("NFC", "NFD"):
            references = References(tmp_path / form)
            found = references.of(Prompt(0, "a", unicodedata.normalize(spelled, index)))
            assert len(found) == 1 and not references.coverage[0].problem


def test_what_is_nobodys_in_a_run_and_beside_masks(run, tmp_path):
    (tmp_path / "masks").mkdir()
    Image.new("L", (8, 8), 255).save(tmp_path / "masks" / "100.gif")
    for folder in (run.path, tmp_path / "gt" / "100", tmp_path / "masks"):
        for name in NOBODYS:
            (folder / name).write_bytes(b"")
        (folder / "._img_0000_00.png").write_bytes(b"")
    references = References(tmp_path / "gt")
    groups = [
        group
        for _, chunk in open_run(run.path).groups(references, tmp_path / "masks")
        for group in chunk
    ]
    assert [len(group.pictures) for group in groups] == [3, 3, 3, 3]
    assert groups[0].mask == tmp_path / "masks" / "100.gif" and groups[1].mask is None
    assert references.coverage[0].problem == ""
