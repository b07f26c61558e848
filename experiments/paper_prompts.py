"""Writes the captions of the paper's figures as prompt files, from the official list of 500.

python download/fetch.py memorized_laion_prompts
python -m experiments.paper_prompts      # writes both

prompts/paper_figure6.csv and prompts/paper_figure11.csv: the rows of the list whose captions begin
as those of the figures of Han et al. 2025. Its Figures 1, 2, 3, 9 and 10 do not name theirs.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from memorization_suite import ROOT
from memorization_suite.experiments.common import parser
from memorization_suite.prompts.files import Prompt, read_prompts
from memorization_suite.runs.cli import command
from memorization_suite.runs.files import write_bytes
from memorization_suite.runs.text import first_of

# Figure -> how its captions begin.
CAPTIONS = {
    "figure6": (
        "Watch the Trailer for NBC's <i>Constantine</i>",
        "As Punisher Joins",
        "Aero 50-975035BLU",
        "Signature Purple Ombre",
        "If Barbie Were",
        "Plymouth Curtain Panel featuring Madelyn",
    ),
    "figure11": (
        "Daniel Radcliffe Dons",
        "Director Danny Boyle",
        "30A27S4",
        "Chris Messina",
        "Air Conditioners & Parts",
        "George R.R. Martin Donates",
    ),
}


def chosen(prompts: Sequence[Prompt], begins: Sequence[str]) -> list[Prompt]:
    """The first prompt that begins so, for each. Raises ValueError that names those without one."""
    found = []
    missing = []
    for begin in begins:
        fitting = [prompt for prompt in prompts if prompt.caption.startswith(begin)]
        found += fitting[:1]
        missing += [] if fitting else [begin]
    if missing:
        raise ValueError(f"no caption begins with {first_of(missing)}: is this the list of 500?")
    return found


def write(prompts: Sequence[Prompt], path: Path) -> None:
    """A prompt file of them, as the official one. Raises OSError."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=";", lineterminator="\n")
    writer.writerow(["Caption", "type", "Index"])
    writer.writerows([prompt.caption, prompt.type, prompt.index] for prompt in prompts)
    write_bytes(path, text.getvalue().encode())


def main() -> int:
    """The command line."""
    flags = parser(__doc__)
    default = ROOT / "prompts" / "memorized_laion_prompts.csv"
    flags.add_argument("--prompts", type=Path, default=default, help="the official list of 500")
    flags.add_argument("--out", type=Path, default=ROOT / "prompts", help="folder of the files")
    args = flags.parse_args()
    prompts = read_prompts(args.prompts)
    for figure, begins in CAPTIONS.items():
        path = args.out / f"paper_{figure}.csv"
        write(chosen(prompts, begins), path)
        print(f"{path}: {len(begins)} captions")
    return 0


if __name__ == "__main__":
    sys.exit(command("experiments.paper_prompts", main))
