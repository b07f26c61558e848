"""Published procedures once more: straight, slow, one image at a time where the official code does
so. Imports nothing of the suite.
"""
