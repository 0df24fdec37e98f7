"""One module per command of `keras-bot`."""
