"""The desk knows what each client has, so that any engine can go on with it."""

from rackscale.core import Emit, Finish, FinishReason, Refuse, RefuseReason, Request, RequestId, column
from rackscale.runtime.answer import TokenLogprobs
from rackscale.serve.desk import Desk
from rackscale.serve.engine_messages import Abort, Said, Submit
from rackscale.serve.metrics import Metrics


class FakeStream:
    """What one client got."""

    def __init__(self):
        self.tokens, self.logprobs, self.finishes, self.refusals, self.why = [], [], [], [], None

    def put_token(self, index, token, logprobs):
        self.tokens.append((index, token))
        self.logprobs.append(logprobs)

    def put_finish(self, index, finish):
        self.finishes.append((index, finish.reason))

    def put_refusal(self, refusal):
        self.refusals.append(refusal.what)

    def lose(self, why):
        self.why = why


class Served:
    """A desk, and the messages that engines got."""

    def __init__(self):
        self.metrics = Metrics()
        self.desk = Desk(self.metrics)

    def engine(self):
        sent = []
        self.desk.engine_up(sent.append)
        return sent

    def submit(self, *names, **fields):
        stream = FakeStream()
        requests = [Request(id=RequestId(name), prompt=(5, 6), max_tokens=4) for name in names]
        self.desk.submit(requests, stream, **fields)
        return requests, stream

    def hear(self, *commands, logprobs=(), num_waiting=0):
        self.desk.hear(Said(commands=commands, logprobs=logprobs, num_waiting=num_waiting))

    def ended(self, reason):
        return f'rackscale_requests_ended_total{{reason="{reason}"}} 1.0'.encode() in self.metrics.text()


def emit(**tokens):
    return Emit(
        requests=tuple(tokens),
        tokens=column(list(tokens.values())),
        samples=column(list(range(len(tokens)))),
    )


def finish(request, reason=FinishReason.LENGTH):
    return Finish(request=request, reason=reason, num_prompt=2, num_cached=0, num_output=4)


def test_tokens_and_ends_reach_their_choice():
    served = Served()
    sent = served.engine()
    (one, two), stream = served.submit("a", "b")
    assert sent == [Submit(request=one), Submit(request=two)]
    entry = TokenLogprobs(sample=1, logprob=-1.0)
    served.hear(emit(a=7, b=8), finish("b"), logprobs=(entry,), num_waiting=3)
    assert stream.tokens == [(0, 7), (1, 8)]
    assert stream.logprobs == [None, entry]
    assert stream.finishes == [(1, FinishReason.LENGTH)]
    assert served.desk.num_waiting == 3
    assert served.ended("length")


def test_another_engine_goes_on_after_the_tokens_that_clients_have():
    served = Served()
    served.engine()
    (one, two, three), stream = served.submit("a", "b", "c")
    served.hear(emit(a=7, b=8), emit(a=9), finish("b"))
    served.desk.engine_down()
    assert served.engine() == [
        Submit(request=one, again=True, emitted=(7, 9)),
        Submit(request=three, again=True, emitted=()),
    ]
    served.hear(emit(a=10))
    assert [token for index, token in stream.tokens if index == 0] == [7, 9, 10]
    assert two.id == "b"


def test_what_comes_while_no_engine_is_there_waits():
    served = Served()
    (one,), _ = served.submit("a")
    assert served.desk.num_waiting == 1
    assert served.engine() == [Submit(request=one, again=True)]
    served.hear(num_waiting=0)
    served.desk.engine_down()
    served.submit("b")
    assert served.desk.num_waiting == 1


def test_what_a_client_has_from_another_server_is_kept():
    served = Served()
    sent = served.engine()
    (one,), _ = served.submit("a", emitted=(1, 2))
    assert sent == [Submit(request=one, again=True, emitted=(1, 2))]
    served.hear(emit(a=3))
    served.desk.engine_down()
    assert served.engine() == [Submit(request=one, again=True, emitted=(1, 2, 3))]


def test_a_client_that_goes_is_told_of_once():
    served = Served()
    sent = served.engine()
    requests, _ = served.submit("a")
    served.desk.cancel(requests)
    served.desk.cancel(requests)
    assert sent[1:] == [Abort(request="a")]
    served.hear(finish("a", FinishReason.CANCELLED))
    served.desk.cancel(requests)
    assert sent[2:] == []
    assert served.desk.is_idle


def test_a_client_that_goes_while_no_engine_is_there_is_forgotten():
    served = Served()
    requests, _ = served.submit("a")
    served.desk.cancel(requests)
    assert served.desk.num_waiting == 0
    assert served.engine() == []
    assert served.ended("cancelled")


def test_a_client_that_goes_just_before_the_engine_does_is_forgotten():
    served = Served()
    served.engine()
    requests, _ = served.submit("a")
    served.desk.cancel(requests)
    served.desk.engine_down()
    assert served.engine() == []
    assert served.ended("cancelled")
    assert served.desk.is_idle


def test_a_refusal_reaches_its_client():
    served = Served()
    served.engine()
    _, stream = served.submit("a")
    served.hear(Refuse(request="a", reason=RefuseReason.QUEUE_FULL, what="full", hint="later"))
    assert stream.refusals == ["full"]
    assert served.desk.is_idle


def test_when_it_is_over_it_is_over_for_those_who_come_later_too():
    served = Served()
    _, before = served.submit("a")
    served.desk.end_all("the end")
    _, after = served.submit("b")
    assert before.why == after.why == "the end"
