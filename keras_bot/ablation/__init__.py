"""Ablations: train several recipes over several seeds, and tabulate and plot the results."""
