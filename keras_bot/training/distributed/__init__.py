"""Training on several devices and hosts, on TensorFlow and JAX."""
