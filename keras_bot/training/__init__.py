"""From a recipe to metrics: assemble the parts, train, evaluate, keep records."""
