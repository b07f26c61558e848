"""The main job: images for the prompts of a file, with one mitigation or none. `main(argv)` is the
command line.
"""

from generation.command import main, plan_of

__all__ = ["main", "plan_of"]
