"""Values of decoded masks other than the classes 0 … K - 1."""

IGNORE = 255  # pixels that losses and metrics exclude
UNKNOWN = 256  # pixels whose value cannot be an id: above 255, or a colour
