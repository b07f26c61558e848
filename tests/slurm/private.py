"""A private Slurm of one node, for trying real jobs; nothing of a Slurm that is there changes.

    python -m tests.slurm.private start FOLDER     # prints what to type next
    python -m tests.slurm.private stop FOLDER

It needs root and Debian's packages: apt-get install -y slurm-wlm munge.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
INSTALL = "apt-get install -y slurm-wlm munge"
# Jobs of a core that run together, also where there are fewer cores.
ROOM = 4
PATIENCE = 30.0  # seconds until the node is idle, and until a process has ended
# cred_expire: seconds that a job waits, at least, after it was put back.
SETTINGS = """\
ClusterName=private
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
MaxArraySize=5
KillWait=1
ReturnToService=2
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 Port={node_port} CPUs={cores} RealMemory=4000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why a private Slurm cannot be started here, with what mends it; empty when it can."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"no {', '.join(absent)} here: {INSTALL}"
    if os.geteuid() != 0:
        return "a private Slurm is started by root alone"
    return ""


def start(folder: Path) -> Path:
    """Starts it, and waits until its node takes jobs. Returns the file that SLURM_CONF names.

    Raises OSError that says where the logs are.
    """
    folder = folder.resolve()
    for name in ("state", "spool", "log"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    settings = write_settings(folder)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    socket_file = folder / "munge.socket"
    munged = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={socket_file}"]
    for name in ("pid", "log", "seed"):
        munged.append(f"--{name}-file={folder}/munged.{name}")
    run(folder, munged)
    wait_until(socket_file.exists, folder, "munged did not start")
    run(folder, ["slurmctld", "-D", "-f", str(settings)])
    run(folder, ["slurmd", "-D", "-N", "node", "-f", str(settings)])
    wait_until(lambda: node_state(settings) == "idle", folder, "the node did not become idle")
    return settings


def write_settings(folder: Path) -> Path:
    """slurm.conf, with ports that are free."""
    settings = folder / "slurm.conf"
    text = SETTINGS.format(
        folder=folder,
        host=socket.gethostname().partition(".")[0],
        controller_port=free_port(),
        node_port=free_port(),
        cores=max(ROOM, os.cpu_count() or 1),
    )
    settings.write_text(text, encoding="utf-8")
    return settings


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(folder: Path, command: list[str]) -> None:
    """Starts a program and notes its process id; what it says goes to a log."""
    with open(folder / "log" / f"{command[0]}.log", "ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=dict(os.environ, SLURM_CONF=str(folder / "slurm.conf")),
            start_new_session=True,
        )
    processes = read_processes(folder) | {command[0]: process.pid}
    (folder / "processes.json").write_text(json.dumps(processes), encoding="utf-8")


def read_processes(folder: Path) -> dict[str, int]:
    """Program -> process id."""
    file = folder / "processes.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def wait_until(condition, folder: Path, otherwise: str) -> None:
    """Raises OSError when it does not come true in time."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise OSError(f"{otherwise} within {PATIENCE:.0f} s: see {folder}/log")
        time.sleep(0.1)


def node_state(settings: Path) -> str:
    """Its node's; empty when nobody answers."""
    environment = dict(os.environ, SLURM_CONF=str(settings))
    command = ["sinfo", "--noheader", "--format=%T"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    return done.stdout.strip()


def stop(folder: Path) -> None:
    """Ends its jobs and its own processes, and no others."""
    environment = dict(os.environ, SLURM_CONF=str(folder / "slurm.conf"))
    subprocess.run(["scancel", "--me"], env=environment, capture_output=True)
    wait_for_jobs(environment)
    for process in reversed(read_processes(folder).values()):
        end(process)
    (folder / "processes.json").unlink(missing_ok=True)


def wait_for_jobs(environment: dict[str, str]) -> None:
    """Until none is left, or nobody answers."""
    last = time.monotonic() + PATIENCE
    command = ["squeue", "--noheader"]
    while time.monotonic() < last:
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if not done.stdout.strip():
            return
        time.sleep(0.2)


def end(process: int) -> None:
    """Asks a process to end, and ends it when it does not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(process, number)
        last = time.monotonic() + PATIENCE
        while is_running(process) and time.monotonic() < last:
            time.sleep(0.05)


def is_running(process: int) -> bool:
    """Whether it runs; a child that has ended is taken off the list of processes."""
    with suppress(ChildProcessError):
        os.waitpid(process, os.WNOHANG)
    return Path(f"/proc/{process}").exists()


def main(argv: list[str]) -> int:
    """The command line. Returns the exit code."""
    if len(argv) != 2 or argv[0] not in ("start", "stop"):
        print("usage: python -m tests.slurm.private start|stop FOLDER", file=sys.stderr)
        return 2
    folder = Path(argv[1])
    if argv[0] == "stop":
        stop(folder)
        return 0
    reason = missing()
    if reason:
        print(reason, file=sys.stderr)
        return 2
    try:
        print(f"export SLURM_CONF={start(folder)}")
    except OSError as error:
        stop(folder)
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
