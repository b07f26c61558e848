"""A process that works on a sweep; `sweep.py` starts one for each device.

It ends with its driver: the driver holds the other end of its standard input.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from pathlib import Path

from memorization_suite.commands.sweeps.jobs import DeviceLost
from memorization_suite.commands.sweeps.tasks import open_tasks
from memorization_suite.commands.sweeps.work import work
from memorization_suite.runs import notices
from memorization_suite.runs.library_warnings import heard
from memorization_suite.runs.shards import parse_shard
from memorization_suite.runs.text import fault_text, is_full

# Exit code when the device is broken.
LOST = 3
# And when the disk takes no more.
FULL = 4
# Seconds that an interrupted process may take to end.
PATIENCE = 20.0


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="worker", description="Works on a sweep.")
    parser.add_argument("out", type=Path, help="folder of the sweep")
    parser.add_argument("--place", default="", help="what people call the device")
    parser.add_argument("--log", default="", help="where the output goes")
    parser.add_argument("--shard", default="", help="only this piece of every run")
    typed = parser.parse_args(argv)
    tasks = open_tasks(typed.out)
    tasks.place = typed.place
    tasks.log = typed.log
    tasks.shard = parse_shard(typed.shard)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have switched it off
    threading.Thread(target=end_with_driver, daemon=True).start()
    try:
        with heard(tasks.folder / notices.FILE):
            work(tasks)
    except DeviceLost as error:
        print(error, file=sys.stderr)
        return LOST
    except OSError as error:
        if not is_full(error):
            raise
        print(fault_text(error), file=sys.stderr)
        return FULL
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 1
    return 0


def end_with_driver() -> None:
    """Interrupts this process when the standard input ends."""
    while os.read(0, 1024):
        pass
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    time.sleep(PATIENCE)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
