"""Names of files that belong to nobody: what file managers, disks and editors leave in folders.

Every listing of the suite passes over them, and no folder is refused for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# Without case.
NAMES = frozenset(
    (
        # Apple's, in folders and in archives.
        ".ds_store",
        ".appledouble",
        ".localized",
        ".spotlight-v100",
        ".trashes",
        ".fseventsd",
        "__macosx",
        "icon\r",
        # Windows'.
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "$recycle.bin",
        # Network disks'.
        "@eadir",
        "#recycle",
        "lost+found",
        # Linux desktops' and Jupyter's.
        ".directory",
        ".ipynb_checkpoints",
    )
)
# Beside a file on a disk that is none of Apple's, removed but open on NFS, a bin of a user, open in
# an office program.
PATTERN = re.compile(r"\._.*|\.nfs[0-9a-f]{8,}|\.Trash-\d+|~\$.*|\.~lock\..*#", re.DOTALL)


def is_nobodys(name: str) -> bool:
    """Whether a file or folder of this name is nobody's."""
    return name.lower() in NAMES or bool(PATTERN.fullmatch(name))


def owned(names: Iterable[str]) -> list[str]:
    """The names that are somebody's, in their order."""
    return [name for name in names if not is_nobodys(name)]
