"""Colours that networks take for granted."""

RGB_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean colour of DIV2K, which many super-resolution networks subtract from their input."""
