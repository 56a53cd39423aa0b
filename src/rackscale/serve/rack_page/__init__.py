"""The rack on a screen: `/rack` is a page that draws what `/rack/state` says, once a second.

The page is one answer: style and script are put into it here, and its Content-Security-Policy lets the
browser run these two and talk to this server, nothing else.
"""

import base64
import hashlib
from collections.abc import Callable
from importlib.resources import files

from aiohttp import web
from msgspec import json

from rackscale.serve.rack_state import RackState

__all__ = ["add_rack_routes"]

RETRY_AFTER_S = 1
NOT_YET = "the model is loading; try again"


def add_rack_routes(app: web.Application, state: Callable[[], RackState | None]) -> None:
    """Add GET /rack and GET /rack/state. To be called before a route that takes every path.

    state: the rack as it is now; None while there is none to show, which is answered with a 503.
    """
    page, policy = _page()

    async def show_page(_request: web.Request) -> web.Response:
        headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"}
        return web.Response(text=page, content_type="text/html", charset="utf-8", headers=headers)

    async def show_state(_request: web.Request) -> web.Response:
        now = state()
        if now is None:
            return _not_yet()
        headers = {"Cache-Control": "no-store"}
        return web.Response(body=json.encode(now), content_type="application/json", headers=headers)

    app.router.add_get("/rack", show_page)
    app.router.add_get("/rack/state", show_state)


def _page() -> tuple[str, str]:
    """The page, and the policy that holds for it."""
    folder = files(__name__)
    style, script = (folder.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    page = folder.joinpath("page.html").read_text(encoding="utf-8")
    # The hashes are of all that stands between the tags, to the last blank.
    page = page.replace("<style></style>", f"<style>{style}</style>")
    page = page.replace("<script></script>", f"<script>{script}</script>")
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    )
    return page, policy


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _not_yet() -> web.Response:
    """An error in the shape that all of the gateway's have."""
    error = {"message": NOT_YET, "type": "server_error", "param": None, "code": 503}
    return web.json_response({"error": error}, status=503, headers={"Retry-After": str(RETRY_AFTER_S)})
