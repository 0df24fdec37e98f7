"""Run directories: the lock, checkpoints and their saving during training."""
