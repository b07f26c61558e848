"""Memorization in text-to-image diffusion models: mitigations, detectors and metrics, one protocol.

    import memorization_suite as suite

    plan = suite.plan(model_id="tiny", method="per_sample", end=2, n_samples_per_prompt=2)
    run = suite.generate(plan)
    table = suite.score(run)

Everything is imported by this one name, for example `memorization_suite.mitigation`.
"""

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memorization_suite.commands.detect import detect
    from memorization_suite.commands.detect_plan import plan_detection
    from memorization_suite.commands.generate import generate
    from memorization_suite.commands.generate_plan import plan
    from memorization_suite.commands.report import report
    from memorization_suite.commands.score import score
    from memorization_suite.mitigation.registry import build_mitigation
    from memorization_suite.pipelines.stable_diffusion.pipeline import MemorizationPipeline
    from memorization_suite.runs.plugins import load_plugin

if __name__ not in ("memorization_suite", "__main__"):  # this file too lies on __path__
    raise ImportError(f"{__name__} is memorization_suite: import it by that name")

# The folder that holds commands/, metrics/, tiny/, ...: this file lies beside them.
ROOT = Path(__file__).resolve().parent
__path__ = [str(ROOT)]  # so commands/ is the package memorization_suite.commands, and so on

JOBS = {  # name -> module; imported when it is first used
    "plan": "commands.generate_plan",
    "generate": "commands.generate",
    "plan_detection": "commands.detect_plan",
    "detect": "commands.detect",
    "score": "commands.score",
    "report": "commands.report",
    "load_plugin": "runs.plugins",
    "build_mitigation": "mitigation.registry",
    "MemorizationPipeline": "pipelines.stable_diffusion.pipeline",
}
__all__ = ["ROOT", "MemorizationPipeline", "build_mitigation", "detect", "generate", "plan"]
__all__ += ["load_plugin", "plan_detection", "report", "score"]


def __getattr__(name: str):
    if name not in JOBS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{JOBS[name]}"), name)


def one_name(name: str) -> None:
    """Raises ImportError when a package of the suite is imported without the suite's name.

    In a checkout `import metrics` finds a folder of ours. It would load every module a second time.
    """
    if not name.startswith(f"{__name__}."):
        raise ImportError(f"{name} is {__name__}.{name} here: import it by that name")


if __name__ != "memorization_suite":  # python -m memorization_suite
    from memorization_suite.commands.main import main

    sys.exit(main())
