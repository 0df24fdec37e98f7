"""Reports on runs: ablations, which train their runs and tabulate the results, and HTML pages of finished runs."""
