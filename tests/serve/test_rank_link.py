"""The parent's end of a rank's process: errors arrive as what they are."""

import asyncio
from contextlib import closing

import pytest
from live_server import lives, wait_until

from rackscale.core import RackscaleError, RankLostError
from rackscale.runtime.messages import RankConfig
from rackscale.serve.rank_link import RankLink


def config(path, **fields):
    whole = {
        "path": str(path),
        "num_blocks": 8,
        "block_size": 16,
        "max_running": 2,
        "max_model_len": 64,
        "activations": "auto",
        "kernels": "reference",
        "tokenizer": False,
    }
    return RankConfig(**{**whole, **fields})


def test_the_rank_s_own_error_is_raised(tmp_path):
    async def scenario():
        with closing(RankLink()) as link:
            await link.ready(config(tmp_path / "nowhere"))

    with pytest.raises(RackscaleError, match="nowhere") as failed:
        asyncio.run(scenario())
    assert failed.value.exit_code == 2


def test_a_rank_that_dies_is_lost(golden_logits):
    async def scenario():
        with closing(RankLink()) as link:
            ready = await link.ready(config(golden_logits / "mixtral"))
            assert ready.kernels == "reference"
            pid = link.pid
            assert lives(pid)
            link.kill()
            with pytest.raises(RankLostError, match=rf"process {pid} died \(exit code -9\)"):
                await link.answer()
        return pid

    pid = asyncio.run(scenario())
    wait_until(lambda: not lives(pid), "the end of the rank")
