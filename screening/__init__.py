"""Running detectors on prompt sets, and comparing their scores. `main(argv)` is the command line of
detect_memorization.py.
"""

from memorization_suite import one_name

one_name(__name__)
