"""Benchmarks: speed ratios to a peer measured in the same run, as medians of interleaved repeats."""
