"""What is told of finished runs: the table of an ablation, which it trains first, and the page of a run."""
