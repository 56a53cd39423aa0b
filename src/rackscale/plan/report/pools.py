"""How each pool is cut up."""

from collections.abc import Sequence

from rackscale.plan.report.figures import NONE, plain
from rackscale.plan.report.markup import Markup, element
from rackscale.plan.types import PoolPlan


def pools(shown: Sequence[PoolPlan]) -> Markup:
    """A column for each pool."""
    rows = (
        ("Groups", [plain(pool.groups) for pool in shown]),
        ("Chips in a group", [plain(pool.ranks) for pool in shown]),
        ("Expert parallel", [plain(pool.ep) for pool in shown]),
        ("Tensor parallel, attention", [plain(pool.tp) for pool in shown]),
        ("Redundant experts", [plain(pool.redundant_experts) for pool in shown]),
        (
            "Sequences a rank",
            [plain(pool.batch_per_rank) if pool.batch_per_rank else NONE for pool in shown],
        ),
        (
            "Prompt tokens a step",
            [plain(pool.batch_tokens) if pool.batch_tokens else NONE for pool in shown],
        ),
        ("Micro-batches", [plain(pool.micro_batches) for pool in shown]),
    )
    head = element("tr", element("td"), *(element("th", pool.role, scope="col") for pool in shown))
    body = [
        element(
            "tr", element("th", name, scope="row"), *(element("td", cell, class_="number") for cell in cells)
        )
        for name, cells in rows
    ]
    return element("table", element("thead", head), element("tbody", *body), class_="legend")
