"""Rewrites the generated parts of the documents, or says which of them are out of date.

python -m experiments.documents            # rewrites
python -m experiments.documents --check    # exit code 1 when a part is out of date, and names it

A part stands between `<!-- generated: NAME -->` and `<!-- end -->`, each on a line of its own. Its
text comes from the registries, download/assets.toml, tiny/evaluation/ or commands/speeds.toml.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from memorization_suite import ROOT
from memorization_suite.experiments.claim_tables import CLAIM_PARTS
from memorization_suite.experiments.common import parser
from memorization_suite.experiments.metric_tables import METRIC_PARTS
from memorization_suite.experiments.parity_tables import PARITY_PARTS
from memorization_suite.experiments.reference_tables import REFERENCE_PARTS
from memorization_suite.experiments.result_tables import RESULT_PARTS
from memorization_suite.experiments.scaling_tables import SCALING_PARTS
from memorization_suite.experiments.sd_cost import COST_PARTS
from memorization_suite.runs.cli import command
from memorization_suite.runs.files import write_bytes
from memorization_suite.runs.settings import unknown_name

Parts = Mapping[str, Callable[[], str]]
# Name of a part -> what makes its text.
PARTS: Parts = {
    **REFERENCE_PARTS,
    **PARITY_PARTS,
    **METRIC_PARTS,
    **RESULT_PARTS,
    **CLAIM_PARTS,
    **COST_PARTS,
    **SCALING_PARTS,
}

BEGIN = re.compile(r"<!-- generated: (\S+) -->")
END = "<!-- end -->"


def documents(root: Path = ROOT) -> list[Path]:
    """The files that may hold generated parts."""
    found = [*root.glob("*.md"), *root.glob("*/*.md")]
    return sorted(path for path in found if not path.parent.name.startswith("."))


def rewritten(text: str, parts: Parts = PARTS) -> tuple[str, list[str]]:
    """A document with its generated parts as they should be, and the names of those that were not.

    Raises ValueError for an unknown part, or one without an end.
    """
    lines: list[str] = []
    changed = []
    rest = text.splitlines()
    while rest:
        line = rest.pop(0)
        lines.append(line)
        begin = BEGIN.fullmatch(line)
        if not begin:
            continue
        name = begin[1]
        if name not in parts:
            raise unknown_name("generated part", name, parts)
        if END not in rest:
            raise ValueError(f"the generated part {name} has no line {END}")
        end = rest.index(END)
        wanted = parts[name]().splitlines()
        if rest[:end] != wanted:
            changed.append(name)
        lines += wanted
        rest = rest[end:]
    return "".join(f"{line}\n" for line in lines), changed


def update(root: Path = ROOT, *, check: bool = False) -> list[str]:
    """`FILE: part` of all that was out of date; rewrites it unless it is only to be checked.

    Raises ValueError that names the document.
    """
    stale = []
    for path in documents(root):
        name = path.relative_to(root)
        try:
            text, changed = rewritten(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        stale += [f"{name}: {part}" for part in changed]
        if changed and not check:
            write_bytes(path, text.encode())
    return stale


def main() -> int:
    """The command line."""
    flags = parser(__doc__)
    flags.add_argument("--check", action="store_true", help="change nothing; exit code 1 if stale")
    args = flags.parse_args()
    stale = update(check=args.check)
    for line in stale:
        print(f"{line} is out of date" if args.check else f"{line} rewritten")
    if args.check and stale:
        print("Rewrite them: python -m experiments.documents")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(command("experiments.documents", main))
