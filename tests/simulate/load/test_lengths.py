import numpy as np
import pytest

from rackscale.core import SpecError
from rackscale.simulate.load import Arrival, ClosedLoad, FixedLengths, SeenLengths, UniformLengths


def test_fixed_lengths():
    assert FixedLengths(num_prompt=8, num_output=2).draw(3, 0).tolist() == [[8, 2]] * 3


def test_uniform_lengths_are_even_and_apart():
    pairs = UniformLengths(num_prompt=8192, num_output=1024).draw(20_000, 1)
    assert pairs.min(0).tolist() == pytest.approx([0.8 * 8192, 0.8 * 1024], rel=1e-2)
    assert pairs.max(0).tolist() == [8192, 1024]
    assert pairs.mean(0) == pytest.approx([0.9 * 8192, 0.9 * 1024], rel=5e-3)
    assert abs(np.corrcoef(pairs.T)[0, 1]) < 0.03


def test_a_share_of_nothing_leaves_a_token():
    assert UniformLengths(num_prompt=2, num_output=1, least_share=0).draw(100, 0).min() == 1


def test_seen_lengths_keep_prompt_and_answer_together():
    lengths = SeenLengths.of([Arrival(0, 10, 1), Arrival(1, 20, 2), Arrival(2, 20, 2)])
    pairs = lengths.draw(9000, 0)
    assert {tuple(pair) for pair in pairs.tolist()} == {(10, 1), (20, 2)}
    assert (pairs[:, 0] == 20).mean() == pytest.approx(2 / 3, abs=0.02)


@pytest.mark.parametrize(
    "lengths",
    [UniformLengths(num_prompt=900, num_output=90), SeenLengths(np.arange(2, 202).reshape(-1, 2))],
)
def test_a_seed_draws_the_same_again(lengths):
    assert (lengths.draw(50, 3) == lengths.draw(50, 3)).all()
    assert (lengths.draw(50, 3) != lengths.draw(50, 4)).any()


def test_bad_lengths_are_named():
    with pytest.raises(SpecError, match="prompt's length of 0"):
        FixedLengths(num_prompt=0, num_output=1)
    with pytest.raises(SpecError, match="answer's length of -1"):
        UniformLengths(num_prompt=1, num_output=-1)
    with pytest.raises(SpecError, match="least share"):
        UniformLengths(num_prompt=1, num_output=1, least_share=1.1)
    with pytest.raises(SpecError, match="no lengths"):
        SeenLengths.of([])
    with pytest.raises(SpecError, match="seed of -1"):
        UniformLengths(num_prompt=1, num_output=1).draw(1, -1)


def test_a_closed_load_lists_its_requests():
    lengths = FixedLengths(num_prompt=8, num_output=2)
    load = ClosedLoad(concurrency=4, num_requests=3, lengths=lengths)
    assert list(load.requests(seed=0)) == [(8, 2)] * 3
    with pytest.raises(SpecError, match="concurrency of 0"):
        ClosedLoad(concurrency=0, num_requests=3, lengths=lengths)
    with pytest.raises(SpecError, match="number of requests of 0"):
        ClosedLoad(concurrency=1, num_requests=0, lengths=lengths)
