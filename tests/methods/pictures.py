"""A picture on disk for methods that take a reference image."""

import tempfile
from functools import cache
from pathlib import Path

from PIL import Image

FOLDER = tempfile.TemporaryDirectory(prefix="memorization_tests_")  # gone with the process


@cache
def reference_image() -> str:
    """Path of a PNG, 48 x 40 pixels: colors that change from corner to corner and a dark
    square.
    """
    picture = Image.merge(
        "RGB", [Image.linear_gradient("L").rotate(90 * k).resize((48, 40)) for k in range(3)]
    )
    picture.paste((20, 20, 60), (10, 8, 26, 24))
    path = Path(FOLDER.name) / "reference.png"
    picture.save(path)
    return str(path)
