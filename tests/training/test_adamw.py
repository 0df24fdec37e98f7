"""AdamW clips the applied gradient, which is summed over all replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bot.recipe import Recipe
from keras_bot.training.optimizer import build_optimizer


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_gradient_is_summed_over_replicas_before_clipping(replicas, two_replicas):
    strategy = two_replicas if replicas == 2 else tf.distribute.get_strategy()
    gradients = tf.constant([[30.0, 0.0], [0.0, 40.0]])
    with strategy.scope():
        weight = keras.Variable([0.0, 0.0], name="kernel")
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        optimizer = build_optimizer(Recipe(optimizer="adamw", global_clipnorm=5.0, weight_decay=0.0), 0.1, model)
        optimizer.build([weight])

    def step():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        optimizer.apply([gradients[replica] if replicas == 2 else tf.reduce_sum(gradients, 0)], [weight])

    tf.function(lambda: strategy.run(step))()
    applied = np.asarray(optimizer._momentums[0]) / (1 - optimizer.beta_1)
    np.testing.assert_allclose(applied, [3, 4], rtol=1e-5)
