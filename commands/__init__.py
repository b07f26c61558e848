"""The jobs of the suite as functions: plan and generate, detect, score, calibrate, sweep, report.

The scripts at the top of the checkout, sweeps, examples and benchmarks all call these.
"""

from memorization_suite import one_name

one_name(__name__)
