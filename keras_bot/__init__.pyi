"""Types of the public names, which `__init__.py` imports on first use."""

from keras_bot import data as data
from keras_bot import detection as detection
from keras_bot import export as export
from keras_bot import interop as interop
from keras_bot import models as models
from keras_bot import segmentation as segmentation
from keras_bot import training as training
from keras_bot import tricks as tricks
from keras_bot.export.model import export_model as export_model
from keras_bot.models import create_model as create_model
from keras_bot.recipe import Recipe as Recipe
from keras_bot.tasks.backbone import load_backbone as load_backbone
from keras_bot.trainer import train as train
from keras_bot.training.evaluate import evaluate as evaluate
from keras_bot.training.finetune import load_weights_from as load_weights_from

__version__: str
