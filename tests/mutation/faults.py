"""The faults of the mutation check, numbered from 1 in this order. They were chosen without looking at the tests."""

from faults_data import DATA
from faults_models import MODELS
from faults_others import CHECKPOINTS, EXPORT, OTHERS
from faults_training import TRAINING
from faults_tricks import TRICKS

FAULTS = dict(enumerate([*TRICKS, *MODELS, *DATA, *TRAINING, *CHECKPOINTS, *EXPORT, *OTHERS], start=1))
