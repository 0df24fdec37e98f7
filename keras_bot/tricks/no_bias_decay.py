"""No bias decay: which variables the weight decay acts on (section 3.1).

What: weight decay fights overfitting of the many weights of convolutions and dense layers. Biases and a
    normalisation's gamma and beta are few, and pulling them to 0 only harms.
Equation: g = grad + lambda * w for kernels, g = grad for every other variable.
Shapes and dtypes: a kernel has rank 2 or more; any dtype.
The paper's value: on in the efficient setting; the plain baseline decays all variables.
Interactions: `NAG` applies it (`decay="kernels"`). Don't add kernel regularizers to the model as well: that
    decays twice.
Reference: Jia et al., "Highly Scalable Deep Learning Training System", arXiv 1807.11205; He et al., CVPR
    2019, section 3.1.

A variable is told by its role: the name that Keras' convolution and dense layers give to the weight itself.
Matching the whole path, as `exclude_from_weight_decay` does, errs for a layer that is called "bias_branch".
"""

import re
import warnings

import keras

KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel")

_SPARED = ("bias", "gamma", "beta")  # of any rank
_EXCLUDED = "excluded_from_weight_decay"  # in an optimizer's configuration


def is_kernel(variable: keras.Variable) -> bool:
    """Whether `variable` is the kernel of a dense layer or of a convolution of any kind.

    Weights of a SavedModel in a `TFSMLayer` count as well; they are the only ones whose names have the form
    LAYER_WEIGHT:0.
    """
    name, is_loaded, _ = variable.name.partition(":")
    has_role = name in KERNELS or (is_loaded and name.endswith("_kernel"))
    return bool(has_role) and len(variable.shape) >= 2


def split_by_decay(model: keras.Model) -> tuple[list[keras.Variable], list[keras.Variable]]:
    """The model's trainable variables as (decayed, spared), each in the model's order."""
    variables = model.trainable_variables
    return [v for v in variables if is_kernel(v)], [v for v in variables if not is_kernel(v)]


def warn_of_unknown_weights(variables: list[keras.Variable]):
    """Warns, with their paths, of matrices that `is_kernel` doesn't know, as custom layers have: no decay for them."""
    others = [v.path for v in variables if len(v.shape) >= 2 and not is_kernel(v) and v.name not in _SPARED]
    if others:
        warnings.warn(
            f'decay="kernels" leaves these weights of rank 2 or more without decay: {", ".join(others)}. To decay them '
            'too, pass the list of paths as decay=, or decay="all".',
            stacklevel=2,
        )


class DecayExclusions:
    """As a base before Keras' Optimizer: `exclude_from_weight_decay` is kept in the configuration, and so in files.

    A name is searched, as a regular expression, in the variables' own names ("bias"); only if it is in none of them, in
    their paths ("head/", the name of a layer).
    """

    _excluded_paths = ()
    _excluded_names = ()

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        """Excludes variables from the weight decay; call it before the optimizer is built. Replaces earlier calls.

        Args:
            var_list: the variables themselves.
            var_names: regular expressions of their names, or one of them.

        Raises:
            ValueError: if the optimizer is built already.
        """
        if self.built:  # Keras' own check looks at an attribute that no longer exists
            raise ValueError("exclude_from_weight_decay must be called before the optimizer is built or compiled.")
        var_names = [var_names] if isinstance(var_names, str) else var_names
        super().exclude_from_weight_decay(var_list, var_names)
        self._excluded_paths = tuple(getattr(v, "path", v.name.partition(":")[0]) for v in var_list or ())
        self._excluded_names = tuple(var_names or ())

    def build(self, variables):
        """Decides which variables are excluded: in a TensorFlow graph there are only raw ones, without paths."""
        if self.built:
            return
        super().build(variables)
        chosen = {path for name in self._excluded_names for path in _search(name, variables)}
        known = getattr(self, "_exclude_from_weight_decay", set())  # the keys of `var_list`, unless it is from a file
        if not known:
            chosen |= {v.path for v in variables for path in self._excluded_paths if same_path(path, v.path)}
        self._excluded_keys = known | {self._var_key(v) for v in variables if v.path in chosen}

    def _use_weight_decay(self, variable):
        return self._var_key(variable) not in self._excluded_keys

    def get_config(self):
        """The optimizer's arguments, and its exclusions if there are any."""
        config = super().get_config()
        if self._excluded_paths or self._excluded_names:
            config[_EXCLUDED] = {"var_paths": list(self._excluded_paths), "var_names": list(self._excluded_names)}
        return config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """The optimizer that `get_config` describes."""
        config = dict(config)
        excluded = config.pop(_EXCLUDED, None)
        optimizer = super().from_config(config, custom_objects=custom_objects)
        if excluded:
            optimizer.exclude_from_weight_decay(var_names=excluded["var_names"])
            optimizer._excluded_paths = tuple(excluded["var_paths"])
        return optimizer


def same_path(one: str, other: str) -> bool:
    """Whether two paths may be of one variable: either may have leading parts that the other lacks."""
    return f"/{one}".endswith(f"/{other}") or f"/{other}".endswith(f"/{one}")


def _search(pattern, variables):
    """The paths of the variables that a pattern of `exclude_from_weight_decay` means."""
    by_name = [v.path for v in variables if re.search(pattern, v.name)]
    return by_name or [v.path for v in variables if re.search(pattern, v.path)]
