"""`python -m keras_bot` is `keras-bot`."""

import sys

from keras_bot.cli.main import main

sys.exit(main())
