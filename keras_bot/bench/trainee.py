"""The model that a recipe trains, compiled as the trainer does."""

import keras

from keras_bot.data import Source
from keras_bot.recipe import Recipe
from keras_bot.tasks.classification import Classification
from keras_bot.training.compile import compile_trainee
from keras_bot.training.distributed.strategy import Strategy
from keras_bot.training.optimizer import build_optimizer
from keras_bot.training.schedule import build_schedule, count_steps


def build_trainee(recipe: Recipe, source: Source, strategy: Strategy) -> tuple[keras.Model, keras.Model]:
    """Returns a recipe's network and the compiled model to fit. Call it in the scope of the policy and the strategy."""
    task = Classification()
    network = task.build_network(recipe, source)
    optimizer = build_optimizer(recipe, build_schedule(recipe, count_steps(recipe, source)), network)
    trainee = task.build_trainee(recipe, network, task.load_teacher(recipe, source, strategy))
    losses, step_transform = task.build_losses(source), task.build_step_transform(recipe)
    compile_trainee(recipe, trainee, network, optimizer, strategy, losses=losses, step_transform=step_transform)
    return network, trainee
