"""Many runs of generate_images.py from one file."""
