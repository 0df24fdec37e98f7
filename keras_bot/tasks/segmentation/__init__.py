"""Semantic segmentation (6.2): FCN and DeepLabV3+ on trained backbones."""
