"""Tasks of the trainer: classification, detection and segmentation on one interface."""
