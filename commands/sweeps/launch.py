"""On what a sweep runs: the devices of this machine, jobs of Slurm, or one of several machines."""

from __future__ import annotations

from memorization_suite.commands.sweeps.cluster import read_pairs
from memorization_suite.runs.settings import Settings, flag_names, frozen_settings, unkeyed
from memorization_suite.runs.shards import Shard, parse_shard

LAUNCHERS = ("local", "slurm")


@frozen_settings
class Launch(Settings):
    """Where the runs of a sweep are made, and in how many processes."""

    launcher: str = unkeyed(
        "local", "every device of this machine, or job arrays", choices=LAUNCHERS
    )
    jobs: int | None = unkeyed(
        None, "processes at once (default: one a device; slurm: all)", at_least=1, metavar="N"
    )
    slurm: tuple[str, ...] = unkeyed(
        (), "options of sbatch, such as partition=gpu time=08:00:00", metavar="KEY=VALUE"
    )
    prompts_per_job: int | None = unkeyed(
        None, "divide a run into pieces of so many prompts", at_least=1, metavar="N"
    )
    no_wait: bool = unkeyed(False, "slurm: submit all jobs, print their ids, and return")
    shard: str = unkeyed("", "only every N-th batch of each run, from the I-th", metavar="I/N")
    status: bool = unkeyed(False, "say what is done, runs and failed, and do nothing")
    dry_run: bool = unkeyed(False, "print the commands, and do nothing")
    devices: int | None = unkeyed(
        None, "with --dry_run: hours and storage on so many GPUs", at_least=1, metavar="N"
    )

    @property
    def piece(self) -> Shard:
        """The piece of every run that this command makes."""
        return parse_shard(self.shard)

    @property
    def is_slurm(self) -> bool:
        """Whether jobs of Slurm do the work."""
        return self.launcher == "slurm"

    def check(self) -> None:
        """Raises ValueError for flags that say nothing together."""
        self.check_alone()
        for name in ("slurm", "no_wait"):
            if getattr(self, name) and not self.is_slurm:
                raise ValueError(f"--{name} is for jobs of Slurm: add --launcher slurm")
        if self.devices and not self.dry_run:
            raise ValueError("--devices says what a sweep would take: add --dry_run")
        if self.dry_run and self.piece:
            raise ValueError(
                f"--dry_run says what the whole sweep is: leave --shard {self.shard} out"
            )
        read_pairs(self.slurm)
        if self.piece and self.is_slurm:
            raise ValueError(
                f"--shard {self.shard} is for machines without a scheduler: with --launcher slurm "
                "--prompts_per_job N divides the runs"
            )
        if self.piece and self.prompts_per_job:
            raise ValueError(
                f"--shard {self.shard} divides every run already: leave --prompts_per_job out"
            )

    def check_alone(self) -> None:
        """Raises ValueError for --status beside another flag of the launch."""
        if not self.status:
            return
        for name in self.typed_names():
            if name != "status":
                raise ValueError(
                    f"--status only looks, and takes no --{name}: type the file, --status, and "
                    "--output_path if the sweep has one"
                )

    def typed_names(self) -> list[str]:
        """Flags that are not at their defaults."""
        defaults = type(self)()
        return [name for name in flag_names(self) if getattr(self, name) != getattr(defaults, name)]
