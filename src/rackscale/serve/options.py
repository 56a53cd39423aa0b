"""What `rackscale serve` or `rackscale frontend` was asked for."""

from dataclasses import dataclass
from pathlib import Path

from rackscale.serve.discovery import Discovery
from rackscale.specs import PoolLayout, Role

DEFAULT_PREFILL, DEFAULT_DECODE = 1, 2
DEFAULT_LAYOUT = (
    PoolLayout(role=Role.PREFILL, num_ranks=DEFAULT_PREFILL),
    PoolLayout(role=Role.DECODE, num_ranks=DEFAULT_DECODE),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class FrontendOptions:
    """What every server has that clients ask. Defaults are those of the command line.

    drain_s: how long running requests may go on after a SIGTERM. max_body_mib: larger request bodies are
    refused. dynamo_host: this host's address, at which its workers and other hosts' frontends talk.
    migration_limit: to how many other workers a request goes, one after the other, as they die.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    tls_cert: Path | None = None
    tls_key: Path | None = None
    drain_s: float = 30.0
    max_body_mib: int = 8
    discovery: Discovery = Discovery.MEM
    dynamo_host: str = "127.0.0.1"
    migration_limit: int = 3

    @property
    def among_others(self) -> bool:
        """Whether workers and frontends of other processes are there too."""
        return self.discovery is not Discovery.MEM


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeOptions(FrontendOptions):
    """Defaults are those of the command line.

    stream_interval_s: a stream's later chunks come at most this often, with all tokens since the
    last one; its first and its last come at once. frontend: whether clients can ask here; if not, this is
    a worker for frontends elsewhere. layout: of ranks, unless there is a
    `deployment` file that says it. hosts: that join with ranks at `listen`; 0: all ranks are here.
    hang_limit_s: a process that is silent for so long counts as dead. start_limit_s: how long the ranks
    of a group may take to start. wire: in what format tokens go to experts of other ranks. router_skew:
    for tests, see `runtime.host_model.skewed`.
    """

    model: Path
    served_name: str | None = None
    kernels: str = "auto"
    activations: str = "auto"
    weights: str = "auto"
    max_model_len: int | None = None
    kv_gib: float | None = None
    block_size: int = 16
    max_batched_tokens: int = 512
    max_running: int = 64
    max_waiting: int = 1024
    log: Path | None = None
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    stream_interval_s: float = 0.020
    frontend: bool = True
    layout: tuple[PoolLayout, ...] = DEFAULT_LAYOUT
    deployment: Path | None = None
    hosts: int = 0
    listen: str | None = None
    hang_limit_s: float = 30.0
    start_limit_s: float = 60.0
    wire: str = "fp32"
    router_skew: float = 0.0

    @property
    def name(self) -> str:
        """What clients call the model."""
        return self.served_name or self.model.resolve().name
