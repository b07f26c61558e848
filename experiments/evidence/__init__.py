"""The paper's evidence: what is computed and drawn from the runs of a sweep."""
