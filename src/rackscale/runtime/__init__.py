"""Performs step plans: torch, kernels, sampling."""
