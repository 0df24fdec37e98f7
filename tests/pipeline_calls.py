"""What the tests of detection's and segmentation's input pipelines share: recorded calls and their settings."""

import dataclasses

TRAIN_CONFIG = {  # of both tasks, for a recipe of batch size 4 and the default values otherwise
    **{"batch_size": 4, "corrupt": "the log", "dtype": "float32", "ram_budget": 1024, "worker": 0, "workers": 1},
    **{"epochs": 120, "seed": 0, "first_epoch": 0, "first_step": 0, "flip": True, "color_jitter": 0.4},
    **{"pca_noise": 0.1, "shuffle_buffer": 8192, "draws_of": 0},
}


def config_of(source, calls):
    """Returns the fields of the config of the only recorded call, `pipeline(source, config)`."""
    (((called_source, config), options),) = calls
    assert called_source is source and not options
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
