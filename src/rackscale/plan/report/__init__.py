"""Plans and comparisons as pages: each one file, read without network, server or script.

A sweep's page is `rackscale.plan.report.sweep_page`, which loads the planner as well.
"""

from rackscale.plan.report.comparison_page import comparison_page
from rackscale.plan.report.plan_page import plan_page

__all__ = ["comparison_page", "plan_page"]
