"""Many runs of generate_images.py from one file."""

from memorization_suite import one_name

one_name(__name__)
