"""What every client asked for and has got: all that another engine has to know to go on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic

from msgspec import Struct

from rackscale.core import Emit, Finish, Refuse, Request, RequestId, Seconds, TokenId
from rackscale.runtime.answer import TokenLogprobs
from rackscale.serve.engine_messages import Abort, Said, Submit
from rackscale.serve.kv_events import KvEvents
from rackscale.serve.metrics import Metrics
from rackscale.serve.stream import Stream

Send = Callable[[Struct], None]


@dataclass(kw_only=True, slots=True)
class Entry:
    """A request that has not ended. tokens: those that its stream has. is_cancelled: the client is gone, and
    the engine was told."""

    request: Request
    stream: Stream
    index: int  # among the stream's choices
    tokens: list[TokenId] = field(default_factory=list)
    is_cancelled: bool = False


class Desk:
    """Between clients, who stay, and engines, which come and go. kv_events: where to tell what the engine's
    caches hold."""

    def __init__(self, metrics: Metrics, kv_events: KvEvents | None = None) -> None:
        self._metrics, self._kv_events = metrics, kv_events
        self._entries: dict[RequestId, Entry] = {}
        self._send: Send | None = None
        self._why_over: str | None = None
        self.num_waiting = 0  # as the engine said last, and what has come and gone since, where there is none

    def engine_up(self, send: Send) -> None:
        """A new engine: it is told of all who wait, in the order in which they came."""
        self._send = send
        for entry in self._entries.values():
            send(Submit(request=entry.request, again=True, emitted=tuple(entry.tokens)))

    def engine_down(self) -> None:
        """What comes is kept for the next one, which begins with empty caches. What was cancelled is over."""
        self._send = None
        for request, entry in list(self._entries.items()):
            if entry.is_cancelled:
                self._forget(request)
        if self._kv_events is not None:
            self._kv_events.tell_all_gone()

    def submit(self, requests: Sequence[Request], stream: Stream, emitted: tuple[TokenId, ...] = ()) -> None:
        """Requests, one for each of the stream's choices. emitted: what the client has already."""
        if self._why_over is not None:
            stream.lose(self._why_over)
            return
        for index, request in enumerate(requests):
            self._entries[request.id] = Entry(
                request=request, stream=stream, index=index, tokens=list(emitted)
            )
            self._metrics.arrived(request.id, _now())
            if self._send is None:
                self.num_waiting += 1
            else:
                self._send(Submit(request=request, again=bool(emitted), emitted=emitted))

    def cancel(self, requests: Sequence[Request]) -> None:
        """The client is gone: what has not ended ends now."""
        for request in requests:
            entry = self._entries.get(request.id)
            if entry is None or entry.is_cancelled:
                continue
            if self._send is None:
                self._forget(request.id)
                self.num_waiting = max(0, self.num_waiting - 1)
            else:
                entry.is_cancelled = True
                self._send(Abort(request=request.id))

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for anything."""
        return not self._entries

    def end_all(self, why: str) -> None:
        """No request gets another token, and none that comes now gets any: tell every client why."""
        self._why_over = why
        for entry in self._entries.values():
            entry.stream.lose(why)

    def hear(self, said: Said) -> None:
        """The engine said something."""
        now = _now()
        self.num_waiting = said.num_waiting
        if self._kv_events is not None:
            self._kv_events.tell(said.blocks)
        logprobs = {entry.sample: entry for entry in said.logprobs}
        for command in said.commands:
            match command:
                case Emit():
                    self._emit(command, now, logprobs)
                case Finish():
                    entry = self._entries.pop(command.request)
                    entry.stream.put_finish(entry.index, command)
                    self._metrics.finished(command, now)
                case Refuse():
                    entry = self._entries.pop(command.request)
                    entry.stream.put_refusal(command)
                    self._metrics.refused(command)

    def _forget(self, request: RequestId) -> None:
        del self._entries[request]
        self._metrics.cancelled(request)

    def _emit(self, emit: Emit, now: Seconds, logprobs: dict[int, TokenLogprobs]) -> None:
        samples = emit.samples.tolist()
        for request, token, sample in zip(emit.requests, emit.tokens.tolist(), samples, strict=True):
            entry = self._entries[request]
            entry.tokens.append(token)
            entry.stream.put_token(entry.index, token, logprobs.get(sample))
            self._metrics.token(request, now)


def _now() -> Seconds:
    return Seconds(monotonic())
