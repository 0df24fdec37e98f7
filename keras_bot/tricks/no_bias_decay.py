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

import keras

KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel")


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
