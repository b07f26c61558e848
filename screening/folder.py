"""The folder of one detector's scores."""

from __future__ import annotations

from pathlib import Path

from memorization_suite.prompts.files import Prompt
from memorization_suite.runs.files import read_csv, write_csv
from memorization_suite.runs.run_folder import RunFolder

SETS = ("mem", "nonmem")
Batch = tuple[str, int]  # a set, and the row of the batch's first prompt


class ScoreFolder(RunFolder):
    """`scores.csv`, `cost.csv`, `masks/`, `overlays/`, `config.json`, `manifest.json`. A batch is
    saved whole; a stopped run goes on.
    """

    own = (
        "manifest.json",
        "config.json",
        "scores.csv",
        "cost.csv",
        "masks",
        "overlays",
        ".parts",
        ".*.part",
    )

    def save_batch(self, batch: Batch, scores: list[dict], cost: list[dict]) -> None:
        """Rows of one batch; the scores last, they mark it as done."""
        (self.path / ".parts").mkdir(exist_ok=True)
        write_csv(self.part("cost", batch), cost)
        write_csv(self.part("scores", batch), scores)

    def part(self, table: str, batch: Batch) -> Path:
        return self.path / ".parts" / f"{table}_{batch[0]}_{batch[1]:06d}.csv"

    def done(self) -> set[tuple[str, int]]:
        """(set, prompt row) of every prompt that has its scores."""
        return {(row["set"], int(row["prompt_index"])) for row in self.all_rows("scores")}

    def all_rows(self, table: str) -> list[dict[str, str]]:
        """Rows of the table and of the parts that are not in it yet, in order."""
        files = [self.path / f"{table}.csv", *sorted((self.path / ".parts").glob(f"{table}_*.csv"))]
        rows = (row for file in files for row in read_csv(file))
        found = {
            (
                SETS.index(row["set"]),
                int(row["prompt_index"]),
                int(row.get("sample_index") or 0),
            ): row
            for row in rows
        }
        return [row for _, row in sorted(found.items())]

    def publish_scores(self) -> None:
        """Writes the tables from all parts, and drops the parts."""
        for table in ("cost", "scores"):
            rows = self.all_rows(table)
            if rows:
                write_csv(self.path / f"{table}.csv", rows)
            for part in (self.path / ".parts").glob(f"{table}_*.csv"):
                part.unlink(missing_ok=True)
        if (self.path / ".parts").is_dir() and not any((self.path / ".parts").iterdir()):
            (self.path / ".parts").rmdir()


def score_rows(name: str, prompts: list[Prompt], samples: int, scores: list[float]) -> list[dict]:
    """Rows of scores.csv for a batch; scores in the order of the images."""
    return [
        {
            "set": name,
            "prompt_index": prompt.row,
            "prompt": prompt.caption,
            "sample_index": k,
            "score": f"{scores[i * samples + k]:.7g}",
        }
        for i, prompt in enumerate(prompts)
        for k in range(samples)
    ]


def split_scores(rows: list[dict[str, str]]) -> dict[str, list[float]]:
    """Set -> scores of its prompts, each the mean over its images."""
    found: dict[str, dict[int, list[float]]] = {name: {} for name in SETS}
    for row in rows:
        found[row["set"]].setdefault(int(row["prompt_index"]), []).append(float(row["score"]))
    return {
        name: [sum(values) / len(values) for values in prompts.values()]
        for name, prompts in found.items()
    }
