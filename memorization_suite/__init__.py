"""Memorization in text-to-image diffusion models: mitigations, detectors and metrics, one protocol.

Everything is imported by this one name, for example `memorization_suite.mitigation`.
"""

from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = (HERE.parent / "generate_images.py").is_file()
ROOT = HERE.parent if CHECKOUT else HERE  # the folder that holds metrics/, prompts/, tiny/, ...

if CHECKOUT:
    __path__.append(str(ROOT))


def one_name(name: str) -> None:
    """Raises ImportError when a package of the suite is imported without the suite's name.

    In a checkout `import metrics` finds a folder of ours. It would load every module a second time.
    """
    if not name.startswith(f"{__name__}."):
        raise ImportError(f"{name} is {__name__}.{name} here: import it by that name")
