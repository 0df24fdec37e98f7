"""Type of arrays and tensors in annotations. Imports no backend, so that every part can use it."""

from typing import Any, TypeAlias

Tensor: TypeAlias = Any
"""A NumPy array, or an eager or symbolic tensor of any backend. The frameworks share no base class."""
