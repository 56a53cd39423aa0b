"""How the ranks of a group reach each other's experts."""

from rackscale.runtime.comm.all_to_all import AllToAll, CommTimes, Received
from rackscale.runtime.comm.heap import Heap
from rackscale.runtime.comm.wire import Wire

__all__ = ["AllToAll", "CommTimes", "Heap", "Received", "Wire"]
