"""Detection data: annotation files, sources and input pipelines."""
