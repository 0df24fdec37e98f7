"""Speed, as a ratio to a peer measured in the same run, with medians of interleaved repeats."""
