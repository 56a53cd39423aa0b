"""Ratios between two systems at the same speed for users, and where they come from."""

from rackscale.plan.compare.comparison import BASELINES, compare, compare_with

__all__ = ["BASELINES", "compare", "compare_with"]
