"""No bias decay: weight decay on kernels only (section 3.1).

What: weight decay reduces overfitting of the many weights of convolutions and dense layers. Biases and the gamma
    and beta of normalization layers are few, and decaying them only hurts.
Equation: g = grad + lambda * w for kernels, g = grad for every other variable.
Shapes and dtypes: a kernel has rank 2 or more; any dtype.
The paper's value: on in the efficient setting; the baseline decays all variables.
Interactions: `NAG` applies it (`decayed_variables="kernels"`). Don't also add kernel regularizers to the model: that
    would decay twice.
Reference: Jia et al., "Highly Scalable Deep Learning Training System", arXiv 1807.11205; He et al., CVPR
    2019, section 3.1.

Kernels are recognized by the name that Keras' convolution and dense layers give the variable. Matching the whole path,
as Keras' `exclude_from_weight_decay` does, fails for a layer named "bias_branch".
"""

import re
import warnings
from collections.abc import Iterable
from typing import Any, Self

import keras

KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel")

_NEVER_DECAYED = ("bias", "gamma", "beta")  # not kernels, whatever their rank
_EXCLUDED = "excluded_from_weight_decay"  # key in an optimizer's config


def is_kernel(variable: keras.Variable) -> bool:
    """Returns whether `variable` is the kernel of a dense layer or of any kind of convolution.

    This includes weights of a SavedModel in a `TFSMLayer`, the only ones with names of the form LAYER_WEIGHT:0.
    """
    name, is_loaded, _ = variable.name.partition(":")
    has_role = name in KERNELS or (is_loaded and name.endswith("_kernel"))
    return bool(has_role) and len(variable.shape) >= 2


def split_by_decay(model: keras.Model) -> tuple[list[keras.Variable], list[keras.Variable]]:
    """Splits the model's trainable variables into (decayed, not decayed), each in the model's order."""
    variables = model.trainable_variables
    return [v for v in variables if is_kernel(v)], [v for v in variables if not is_kernel(v)]


def warn_of_unknown_weights(variables: list[keras.Variable]) -> None:
    """Warns about matrices, as in custom layers, that `is_kernel` doesn't recognize and so aren't decayed."""
    others = [v.path for v in variables if len(v.shape) >= 2 and not is_kernel(v) and v.name not in _NEVER_DECAYED]
    if others:
        warnings.warn(
            f'decayed_variables="kernels" does not decay these weights of rank 2 or more: {", ".join(others)}. '
            'To decay them too, pass a list of paths as decayed_variables, or "all".',
            stacklevel=2,
        )


class DecayExclusions(keras.optimizers.Optimizer):
    """Mixin, placed before Keras' Optimizer, that stores `exclude_from_weight_decay` in the config, and so in files.

    A name is a regular expression that is searched in the variables' names ("bias"). If it matches none of them, it is
    searched in their paths ("head/", a layer name).
    """

    _excluded_paths: tuple[str, ...] = ()
    _excluded_names: tuple[str, ...] = ()

    def exclude_from_weight_decay(
        self, var_list: Iterable[keras.Variable] | None = None, var_names: str | Iterable[str] | None = None
    ) -> None:
        """Excludes variables from weight decay, replacing earlier calls. Call it before the optimizer is built.

        Args:
            var_list: variables to exclude.
            var_names: one or more regular expressions for variable names.

        Raises:
            ValueError: if the optimizer is already built.
        """
        if self.built:  # Keras' own check reads an attribute that no longer exists
            raise ValueError("exclude_from_weight_decay must be called before the optimizer is built or compiled.")
        var_names = [var_names] if isinstance(var_names, str) else var_names
        super().exclude_from_weight_decay(var_list, var_names)
        self._excluded_paths = tuple(getattr(v, "path", v.name.partition(":")[0]) for v in var_list or ())
        self._excluded_names = tuple(var_names or ())

    def build(self, variables: list[keras.Variable]) -> None:
        """Determines the excluded variables here, because in a TensorFlow graph variables have no paths."""
        if self.built:
            return
        super().build(variables)
        chosen = {path for name in self._excluded_names for path in _search(name, variables)}
        known: set[int] = getattr(
            self, "_exclude_from_weight_decay", set()
        )  # keys of `var_list`, empty if loaded from a file
        if not known:
            chosen |= {v.path for v in variables for path in self._excluded_paths if same_path(path, v.path)}
        self._excluded_keys = known | {self._var_key(v) for v in variables if v.path in chosen}

    def _use_weight_decay(self, variable):
        return self._var_key(variable) not in self._excluded_keys

    def get_config(self) -> dict[str, Any]:
        """Returns the optimizer's arguments and its exclusions, if any."""
        config = super().get_config()
        if self._excluded_paths or self._excluded_names:
            config[_EXCLUDED] = {"var_paths": list(self._excluded_paths), "var_names": list(self._excluded_names)}
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Self:
        """Builds the optimizer from `get_config`'s result."""
        config = dict(config)
        excluded = config.pop(_EXCLUDED, None)
        optimizer = super().from_config(config, custom_objects=custom_objects)
        if excluded:
            optimizer.exclude_from_weight_decay(var_names=excluded["var_names"])
            optimizer._excluded_paths = tuple(excluded["var_paths"])
        return optimizer


def same_path(one: str, other: str) -> bool:
    """Returns whether two paths may refer to one variable: either may have leading parts that the other lacks."""
    return f"/{one}".endswith(f"/{other}") or f"/{other}".endswith(f"/{one}")


def _search(pattern, variables):
    """Returns the paths of the variables that match a pattern of `exclude_from_weight_decay`."""
    by_name = [v.path for v in variables if re.search(pattern, v.name)]
    return by_name or [v.path for v in variables if re.search(pattern, v.path)]
