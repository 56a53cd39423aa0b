"""Plans and comparisons as pages: each one file that needs no network, no server and no script to be read."""

from rackscale.plan.report.comparison_page import comparison_page
from rackscale.plan.report.plan_page import plan_page

__all__ = ["comparison_page", "plan_page"]
