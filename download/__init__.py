"""What the suite does not ship: where it comes from, where it goes, whether it is whole. The
command is `python download/fetch.py`.
"""

from memorization_suite import one_name

one_name(__name__)
