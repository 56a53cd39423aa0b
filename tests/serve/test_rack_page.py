"""The two routes, and the page as a browser draws it."""

import asyncio
import re
import runpy
import shutil
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from aiohttp import ClientSession, web

from rackscale.serve.rack_page import add_rack_routes
from rackscale.serve.rack_state import RackEvent, RackState

LIMIT_S = 60.0
INVENTED = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "images" / "make_rack_png.py"))
fake_state, serving = INVENTED["fake_state"], INVENTED["serving"]
CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
with_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path")
DUO = {"prefill": 1, "decode": 2}
EVIL = "<img src=x id=owned onerror='document.title=1'></script><script id=owned>document.title=1</script>"


def get(state, path):
    """Status, headers and text of one request."""

    async def ask():
        async with (
            serving(lambda: state) as url,
            ClientSession() as session,
            session.get(url + path) as answer,
        ):
            return answer.status, answer.headers, await answer.text()

    return asyncio.run(asyncio.wait_for(ask(), LIMIT_S))


def test_state_is_the_state():
    state = fake_state(DUO, lost=(1,))
    status, headers, text = get(state, "/rack/state")
    assert status == 200
    assert headers["Content-Type"] == "application/json"
    assert headers["Cache-Control"] == "no-store"
    assert msgspec.json.decode(text, type=RackState) == state


def test_no_state_yet_is_an_error_of_the_api():
    status, headers, text = get(None, "/rack/state")
    assert status == 503
    assert int(headers["Retry-After"]) > 0
    error = msgspec.json.decode(text)["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == "server_error"
    assert error["code"] == 503


def test_page_is_there_before_a_state_is_and_asks_nobody_else():
    status, headers, text = get(None, "/rack")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert not re.findall(r"https?:|//[a-z]|@import|url\(|<link[^>]+(?:href|src)=\"(?!data:)", text)
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "unsafe" not in policy


def test_routes_leave_the_rest_to_a_route_that_takes_every_path():
    async def rest(_request):
        return web.Response(text="rest")

    async def paths():
        app = web.Application()
        add_rack_routes(app, lambda: None)
        app.router.add_route("*", "/{path:.*}", rest)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with ClientSession() as session:
            found = []
            for path in ("/rack", "/rack/state", "/racks", "/rack/other"):
                async with session.get(url + path) as answer:
                    found.append(await answer.text() == "rest")
        await runner.cleanup()
        return found

    assert asyncio.run(asyncio.wait_for(paths(), LIMIT_S)) == [False, False, True, True]


class Dom(HTMLParser):
    """What a browser made of the page: slots by rank, ids, and texts by id."""

    def __init__(self, text):
        super().__init__()
        self.slots, self.roles, self.ids, self.texts = {}, [], [], {}
        self.link, self._id, self._said = None, None, None
        self.feed(text)

    def handle_starttag(self, _tag, attrs):
        found = dict(attrs)
        self.link = found.get("data-link", self.link)
        if "id" in found:
            self._id = found["id"]
            self.ids.append(self._id)
        if found.get("class") == "pool" and "data-role" in found:
            self.roles.append(found["data-role"])
        if "data-rank" in found:
            self._rank = int(found["data-rank"])
            self.slots[self._rank] = [self.roles[-1], found["data-status"], ""]
        self._said = found.get("class") == "said" and bool(self.slots)

    def handle_data(self, data):
        self.texts[self._id] = self.texts.get(self._id, "") + data
        if self._said and self.slots:
            self.slots[self._rank][2] += data


def draw(states, profile):
    """The page's DOM after some seconds of the browser's own time, which passes at once, and what its
    console said meanwhile. states: gives the state of each answer.
    """

    async def dump():
        async with serving(states) as url:
            browser = await asyncio.create_subprocess_exec(
                CHROMIUM,
                *("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"),
                *(f"--user-data-dir={profile}", "--virtual-time-budget=4500", f"{url}/rack"),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            try:
                return await asyncio.wait_for(browser.communicate(), LIMIT_S)
            finally:
                if browser.returncode is None:
                    browser.kill()

    out, err = asyncio.run(dump())
    console = [line for line in err.decode(errors="replace").splitlines() if "CONSOLE" in line]
    return Dom(out.decode()), console


@with_browser
@pytest.mark.parametrize(
    ("sizes", "lost", "starting"),
    [(DUO, (), (2,)), ({"mixed": 72}, (3, 71), (40,))],
    ids=["prefill and decode", "72 mixed"],
)
def test_every_rank_is_drawn_with_its_status(tmp_path, sizes, lost, starting):
    state = fake_state(sizes, lost=lost, starting=starting)
    dom, console = draw(lambda: state, tmp_path)
    assert console == []
    assert dom.link == "up"
    assert dom.roles == list(sizes)
    drawn = {rank: (role, status) for rank, (role, status, _) in dom.slots.items()}
    assert drawn == {rank.rank: (group.role, rank.status) for group in state.groups for rank in group.ranks}
    for rank, (_, status, said) in dom.slots.items():
        assert said.startswith(f"Rank {rank} on rack-a-")
        assert f": {status}, " in said
    assert dom.texts["model"].strip() == state.model
    assert f"{len(lost)} lost" in dom.texts["summary"] or not lost
    assert "experts rebalanced" in dom.texts["events"]


@with_browser
def test_names_are_only_text(tmp_path):
    state = fake_state(DUO, model=EVIL, host=EVIL)
    group = msgspec.structs.replace(state.groups[0], role=EVIL)
    events = [RackEvent(time_s=1.0, what=EVIL)]
    state = msgspec.structs.replace(state, groups=[group, *state.groups[1:]], events=events)
    dom, console = draw(lambda: state, tmp_path)
    assert console == []
    assert "owned" not in dom.ids
    assert dom.texts["model"].strip() == EVIL
    assert EVIL in dom.texts["events"]
    assert sorted(dom.roles) == sorted([EVIL, "decode"])


@with_browser
def test_a_rack_that_is_not_there_yet_says_so(tmp_path):
    dom, console = draw(lambda: None, tmp_path)
    assert all("503" in line for line in console)
    assert dom.link == "waiting"
    assert "loading" in dom.texts["link"]
    assert dom.slots == {}


@with_browser
def test_a_server_that_is_gone_is_told_and_its_last_state_stays(tmp_path):
    answers = iter([fake_state(DUO)])
    dom, _ = draw(lambda: next(answers), tmp_path)  # then a status 500
    assert dom.link == "gone"
    assert "not answered since" in dom.texts["link"]
    assert len(dom.slots) == 3


@with_browser
def test_a_server_that_is_back_is_drawn_again(tmp_path):
    states = [fake_state(DUO), None, fake_state({"mixed": 2})]
    dom, _ = draw(lambda: states.pop(0) if len(states) > 1 else states[0], tmp_path)
    assert dom.link == "up"
    assert dom.roles == ["mixed"]
    assert sorted(dom.slots) == [0, 1]
