"""Layouts of a model on a system: what they reach, which is best, and why. Loads no torch."""
