"""Running detectors on prompt sets, and comparing their scores. `main(argv)` is the command line of
detect_memorization.py.
"""
