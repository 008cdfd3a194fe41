"""The bench: how fast the real path is, beside what others make of the same rows on the same machine in the same minutes.

Wall times are never compared between two runs: every figure is a ratio of neighbours, and a median of several pairs.
"""
