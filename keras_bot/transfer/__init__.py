"""Transfer: detection and segmentation on keras_bot backbones."""
