"""What the suite does, in short programs."""
