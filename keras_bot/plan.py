"""Summary of a recipe's training without running it: `keras-bot train --dry_run`."""

import dataclasses

import keras

from keras_bot import models, tricks
from keras_bot.bag import active_tricks
from keras_bot.recipe import Recipe
from keras_bot.tasks import find_task
from keras_bot.tasks.base import Task
from keras_bot.training.distributed.selection import build_strategy
from keras_bot.training.optimizer import build_optimizer
from keras_bot.training.schedule import build_schedule, count_steps, count_warmup_steps


def plan(recipe: Recipe, task: Task | None = None) -> str:
    """Returns the resolved recipe, tricks, data, steps, learning rates, network size, teacher and decayed variables.

    Raises:
        MisuseError: as `train` would.
    """
    task = task or find_task(recipe.task)
    strategy = build_strategy(dataclasses.replace(recipe, strategy="one_device"))
    source = task.open_source(recipe, "train")
    eval_source = task.open_source(recipe, "eval", class_names=source.class_names)
    steps = count_steps(recipe, source)
    with tricks.mixed_precision(recipe.precision):
        network = task.build_network(recipe, source)
        build_optimizer(recipe, build_schedule(recipe, steps), network)
        teacher = task.load_teacher(recipe, source, strategy)
    rest = source.size - steps * recipe.batch_size
    left_out = f"; {rest} images, different ones each epoch, are dropped with the incomplete last batch" if rest else ""
    sections = {
        "recipe": [line[2:] for line in recipe.flag_lines()],
        "tricks": active_tricks(recipe) or ["none: the paper's baseline"],
        "data": [
            f"{source.name}: {source.size} training and {eval_source.size} evaluation images, "
            f"{source.num_classes} classes"
        ],
        "steps": [f"{steps} per epoch, {steps * recipe.epochs} in total{left_out}"],
        "learning rate": learning_rate_lines(recipe, steps),
        "network": [network_line(recipe, network)],
        **({"teacher": [f"{teacher.name} of {recipe.teacher}"]} if teacher else {}),
        **decay_sections(recipe, network),
    }
    return "\n\n".join("\n".join([title, *(f"  {line}" for line in lines)]) for title, lines in sections.items())


def network_line(recipe: Recipe, model: keras.Model) -> str:
    """Returns the network's parameter count and, for classification, its GFLOPs."""
    size = f"{recipe.model}: {models.count_parameters(model):,} parameters"
    if recipe.task != "classification":
        return f"{size}, head included"
    gflops = models.count_flops(model, recipe.image_size) / 1e9
    return f"{size}, {gflops:.3g} GFLOPs (multiply-adds) at {recipe.image_size}x{recipe.image_size}"


def learning_rate_lines(recipe: Recipe, steps: int) -> list[str]:
    """Returns the learning rate at the schedule's milestones, one line per step."""
    schedule = build_schedule(recipe, steps)
    last = recipe.epochs * steps - 1
    warmup = count_warmup_steps(recipe, steps)
    marks = {0: "first step", warmup // 2: "half the warmup", warmup: "peak", last: "last step"}
    if recipe.schedule == "step":
        marks |= {epoch * steps: f"decay at epoch {epoch}" for epoch in recipe.decay_epochs}
    else:
        marks |= {warmup + (last - warmup) * part // 4: f"{part}/4 of the decay" for part in (1, 2, 3)}
    return [
        f"step {step:>8}, epoch {step / steps:7.2f}: {float(schedule(step)):.6g}  ({name})"
        for step, name in sorted(marks.items())
        if 0 <= step <= last
    ]


def decay_sections(recipe: Recipe, model: keras.Model) -> dict[str, list[str]]:
    """Returns two sections: the variables with and without weight decay."""
    decayed, excluded = tricks.split_by_decay(model)
    if not recipe.no_bias_decay:
        decayed, excluded = model.trainable_variables, []
    if not recipe.weight_decay:
        decayed, excluded = [], model.trainable_variables
    count = {"decayed": decayed, "not decayed": excluded}
    return {
        f"{title}: {len(variables)} variables": [f"{v.path} {tuple(v.shape)}" for v in variables]
        for title, variables in count.items()
    }
