from rackscale.policy import Candidate, route


def rank(cached=0, queued=0, resident=0, sequences=0):
    return Candidate(
        cached_tokens=cached, queued_tokens=queued, resident_tokens=resident, num_sequences=sequences
    )


def test_the_longest_cached_prefix_wins_among_equals():
    assert route([rank(), rank(cached=32), rank(cached=16)]) == 1


def test_a_cached_prefix_is_not_worth_a_longer_queue():
    assert route([rank(cached=32, queued=100), rank(queued=10)]) == 1


def test_a_cached_prefix_is_not_worth_a_crowd_for_ever():
    assert route([rank(cached=32, resident=200), rank(resident=64)]) == 1


def test_then_the_fewest_sequences_then_the_first():
    assert route([rank(sequences=2), rank(sequences=1), rank(sequences=1)]) == 1
