"""Entry point of `python -m keras_bot`, equivalent to `keras-bot`."""

import sys

from keras_bot.cli.main import main

sys.exit(main())
