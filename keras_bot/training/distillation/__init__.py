"""Distillation in the trainer: the teacher, its cached outputs and the soft loss on them."""
