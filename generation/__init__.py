"""The main job: images for the prompts of a file, with one mitigation or none. `main(argv)` is the
command line.
"""

from memorization_suite import one_name
from memorization_suite.generation.command import main, plan_of

__all__ = ["main", "plan_of"]

one_name(__name__)
