"""Augmentation in TensorFlow graphs: geometric transforms and colour."""
