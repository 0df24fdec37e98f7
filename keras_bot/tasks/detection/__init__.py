"""Object detection (6.1): Faster R-CNN and RetinaNet on trained backbones."""
