"""Segmentation data: folders and TFDS sets of masks, and input pipelines."""
