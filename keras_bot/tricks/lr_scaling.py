"""Linear scaling of the learning rate (section 3.1).

What: a larger batch has less gradient noise, so a larger step is safe. Scale the learning rate with the batch size.
Equation: eta = eta_ref * B / B_ref.
Shapes and dtypes: Python numbers in, a Python float out.
The paper's value: eta_ref = 0.1 at B_ref = 256, hence 0.4 at batch 1024.
Interactions: B is the global batch size, over all replicas. At large B the peak rate is too high for freshly
    initialized weights: combine with `Warmup`. Weight decay is not scaled.
Reference: Goyal et al., "Accurate, Large Minibatch SGD", arXiv 1706.02677; He et al., CVPR 2019, section 3.1.
"""


def linear_scaling(learning_rate: float, batch_size: int, reference_batch_size: int = 256) -> float:
    """Scales a learning rate tuned for `reference_batch_size` to `batch_size`.

    Args:
        learning_rate: learning rate for the reference batch size, above 0.
        batch_size: global batch size in images per step, at least 1.
        reference_batch_size: at least 1; 256 in the paper.

    Raises:
        ValueError: if an argument isn't above 0.
    """
    arguments = {
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "reference_batch_size": reference_batch_size,
    }
    for name, value in arguments.items():
        if not value > 0:
            raise ValueError(f"{name} must be above 0, received {value!r}.")
    return float(learning_rate * batch_size / reference_batch_size)
