"""The bias figure of a language model: differences between groups, their intervals, calibration and verdict."""
