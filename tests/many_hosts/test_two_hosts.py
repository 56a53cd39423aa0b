"""Two hosts: KV and tokens over a network, which may be cut, and hosts that die. Nothing is lost."""

import time

import pytest
from live_server import lives, wait_until
from questions_of_hosts import answers_of, ask, submit
from rack import rack_of

CUT_S = 5.0

pytestmark = pytest.mark.timeout(110)


def cut_and_mend(cable, rack, pool, prompts):
    """Some are asked before the cable is cut, some while it is. Gives the answers."""
    futures = ask(rack, pool, prompts[:2])
    cable.cut()
    until = time.monotonic() + CUT_S
    futures += submit(rack, pool, prompts[2:])
    time.sleep(max(0.0, until - time.monotonic()))
    assert not any(future.done() for future in futures)
    cable.mend()
    return answers_of(futures)


def test_a_prefill_host_beside_a_decode_host(bundled_model, tmp_path, cable, pool, questions):
    with rack_of(bundled_model, tmp_path, cable, "--prefill", "1", "--decode", "1") as rack:
        prompts = questions.prompts(12)
        answers = answers_of(ask(rack, pool, prompts[:3]))
        assert rack.state()["transfers"]["num_bytes"] > 0

        answers += cut_and_mend(cable, rack, pool, prompts[3:6])
        assert "is lost" not in rack.log, "five seconds are no reason"

        futures = ask(rack, pool, prompts[6:9])
        ranks = rack.kill_host("b")  # who prefills decodes, too
        answers += answers_of(futures)
        assert not rack.group_is_up(1)
        wait_until(lambda: not any(map(lives, ranks)), "the end of its ranks", 10)

        rack.start_host("b")
        wait_until(lambda: rack.group_is_up(1), "the decode host to be back", 40)
        futures = ask(rack, pool, prompts[9:12])
        rack.kill_host("a")  # who decodes prefills, too
        answers += answers_of(futures)
        assert not rack.group_is_up(0)
        questions.check(prompts, answers)


def test_one_group_over_both_hosts(bundled_model, tmp_path, cable, pool, questions):
    with rack_of(bundled_model, tmp_path, cable, "--mixed", "3") as rack:
        rack.max_tokens = 100  # three ranks on few cores, and the network in every layer
        prompts = questions.prompts(8)
        assert [rank["host"] for rank in rack.state()["groups"][0]["ranks"]] == ["a", "a", "b"]
        answers = answers_of(ask(rack, pool, prompts[:3]))

        answers += cut_and_mend(cable, rack, pool, prompts[3:6])
        assert "is lost" not in rack.log, "five seconds are no reason"

        futures = ask(rack, pool, prompts[6:8])
        rack.kill_host("b")
        rack.start_host("b")
        answers += answers_of(futures)
        questions.check(prompts, answers)
