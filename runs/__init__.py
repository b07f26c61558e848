"""No torch: settings, registries and plugins, the command line, run folders and tables."""

from memorization_suite import one_name
from memorization_suite.runs.run_folder import Key, RunFolder

__all__ = ["Key", "RunFolder"]

one_name(__name__)
