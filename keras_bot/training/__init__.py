"""Training of a network from a recipe: setup, `fit`, evaluation, checkpoints and records."""
