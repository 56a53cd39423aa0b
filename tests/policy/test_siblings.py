from rackscale.policy import Siblings


def held():
    siblings = Siblings()
    siblings.expect("leader")
    siblings.hold("leader", "b", "B")
    siblings.hold("leader", "c", "C")
    return siblings


def test_siblings_are_held_until_their_leader_is_done():
    siblings = held()
    assert len(siblings) == 2
    assert "b" in siblings
    assert siblings.release("leader") == ["B", "C"]
    assert len(siblings) == 0
    assert "b" not in siblings
    assert not siblings.expects("leader")


def test_a_leader_without_siblings_releases_nobody():
    siblings = Siblings()
    siblings.expect("leader")
    assert siblings.expects("leader")
    assert siblings.release("leader") == []


def test_one_may_leave_early():
    siblings = held()
    assert siblings.remove("b") == "B"
    assert siblings.release("leader") == ["C"]


def test_all_may_leave_early():
    siblings = held()
    siblings.remove("b")
    siblings.remove("c")
    assert siblings.drain() == []


def test_drained_it_expects_nobody():
    siblings = held()
    assert siblings.drain() == ["B", "C"]
    assert not siblings.expects("leader")
    assert len(siblings) == 0
