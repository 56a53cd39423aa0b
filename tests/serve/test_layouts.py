"""Whatever the layout, clients see the same."""

from pathlib import Path

import pytest
from live_server import NAME, children, serving
from openai import OpenAI

LAYOUTS = {
    "1 mixed": ["--mixed", "1"],
    "3 mixed": ["--mixed", "3"],
    "2 + 1": ["--prefill", "2", "--decode", "1"],
    "72 mixed": ["--mixed", "72"],
}
MAX_MIB = 4096  # of all processes of 72 ranks
LONG = "It is a truth universally acknowledged, that a single man in possession of a good fortune. " * 8


def answers(server):
    """Greedy, seeded, with log-probabilities, several choices, a long prompt twice, and several at once."""
    client = OpenAI(base_url=server.url, api_key="none", max_retries=0)

    def complete(prompt, **fields):
        fields = {"max_tokens": 12, "temperature": 0, **fields}
        return client.completions.create(model=NAME, prompt=prompt, **fields)

    texts = [
        [choice.text for choice in complete(prompt, **fields).choices]
        for prompt, fields in (
            ("It is", {}),
            (LONG, {}),
            (LONG + "She", {}),
            ("She was", {"temperature": 1, "seed": 5}),
            (LONG, {"temperature": 1, "seed": 6, "n": 3}),
            ([f"{number} days" for number in range(12)], {}),
        )
    ]
    scored = complete("It is", logprobs=2).choices[0].logprobs
    return texts, scored.tokens, [round(value, 3) for value in scored.token_logprobs]


@pytest.fixture(scope="module")
def alone(bundled_model, tmp_path_factory):
    with serving(bundled_model, tmp_path_factory.mktemp("alone"), *LAYOUTS["1 mixed"]) as server:
        return answers(server)


def test_the_default_layout(server, alone):
    assert answers(server) == alone
    groups = server.get("/rack/state").json["groups"]
    assert [(group["role"], len(group["ranks"])) for group in groups] == [("prefill", 1), ("decode", 2)]
    assert "1 prefill rank + 2 decode ranks" in server.log


@pytest.mark.parametrize("layout", ["3 mixed", "2 + 1", "72 mixed"])
def test_other_layouts(layout, bundled_model, tmp_path, alone):
    with serving(bundled_model, tmp_path, *LAYOUTS[layout]) as server:
        assert answers(server) == alone
        ranks = [rank for group in server.get("/rack/state").json["groups"] for rank in group["ranks"]]
        assert {rank["status"] for rank in ranks} == {"up"}
        if layout == "72 mixed":
            assert len({rank["pid"] for rank in ranks}) == 72
            assert memory_mib(server.process.pid) < MAX_MIB
        shared = set(Path("/dev/shm").iterdir())
    assert set(Path("/dev/shm").iterdir()) <= shared


def memory_mib(pid):
    """Of a process and all that come from it; shared pages count once."""
    kib = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            kib = int(line.split()[1])
    return kib / 1024 + sum(memory_mib(child) for child in children(pid))
