"""Run folders and result tables."""

from results.run_folder import Key, RunFolder

__all__ = ["Key", "RunFolder"]
