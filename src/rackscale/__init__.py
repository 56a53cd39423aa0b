"""Serve and plan Mixture-of-Experts language models at rack scale."""

__all__ = ["__version__"]

__version__ = "0.1.0"
