"""The groups by what they do: which of them computes a prompt, and where its decode has room."""

from rackscale.engine.group_state import GroupState
from rackscale.engine.rank_state import RankState, Stay
from rackscale.engine.reservation import Reservation
from rackscale.engine.sequence import Sequence
from rackscale.policy import helps_out, local_limit, prefill_at_decode, route
from rackscale.specs import Role


class Pools:
    """All groups of a deployment. Where there is no prefill pool, nothing moves."""

    def __init__(self, groups: list[GroupState]) -> None:
        self._groups = groups
        self._apart = any(group.role is Role.PREFILL for group in groups)
        for group in groups:
            if group.role is Role.PREFILL:
                for rank in group.ranks:
                    rank.find_room = self._find_room

    def for_prompt(self, sequence: Sequence) -> list[GroupState]:
        """Groups of which one is to compute the sequence's prompt; at least one. Where KV was lost on its way
        it need not move again: so there is an end to it."""
        alive = [group for group in self._groups if not group.lost] or self._groups
        prefill = [group for group in alive if group.role is Role.PREFILL]
        others = [group for group in alive if group.decodes]
        if not prefill or not others:
            return alive
        mixed = [group for group in others if group.role is Role.MIXED]
        if sequence.push_lost or self._stays_local(sequence, prefill, others):
            return others
        return prefill + mixed

    def _stays_local(self, sequence: Sequence, prefill: list[GroupState], others: list[GroupState]) -> bool:
        """Whether a decode group computes the prompt, being short there or mostly cached."""
        limit = max(local_limit(group.costs) for group in others)
        if sequence.num_tokens - self._num_cached(sequence, others) > limit:
            return False
        quickest = min(prefill, key=lambda group: group.num_queued_tokens)
        num_cached = self._num_cached(sequence, others)
        return any(
            prefill_at_decode(
                sequence.num_tokens - num_cached, group.costs, quickest.costs, quickest.num_queued_tokens
            )
            for group in others
        )

    def _num_cached(self, sequence: Sequence, groups: list[GroupState]) -> int:
        """Tokens of the longest prefix that any rank has."""
        return max(rank.offer(sequence).cached_tokens for group in groups for rank in group.ranks)

    def _find_room(self, sequence: Sequence) -> Reservation | Stay | None:
        """Where a sequence that a prefill rank is about to compute is decoded. Where no other group is alive
        it stays."""
        ranks = [rank for group in self._groups if group.decodes and not group.lost for rank in group.ranks]
        if not ranks:
            return Stay()
        return _first_room(sequence, ranks)

    def look(self) -> None:
        """Have decode groups help out while prompts wait long, and no longer."""
        if not self._apart:
            return
        prefill = [group for group in self._groups if group.role is Role.PREFILL and not group.lost]
        queued_s = min((group.num_queued_tokens * group.costs.per_token_s for group in prefill), default=0.0)
        for group in self._groups:
            if group.spec.role is Role.DECODE:
                helping = helps_out(
                    helping=group.role is Role.MIXED, queued_s=queued_s, step_s=group.costs.base_s
                )
                group.role = Role.MIXED if helping else Role.DECODE


def _first_room(sequence: Sequence, ranks: list[RankState]) -> Reservation | None:
    """At the cheapest rank that has any."""
    while ranks:
        best = route([rank.offer(sequence) for rank in ranks])
        room = ranks[best].reserve(sequence)
        if room is not None:
            return room
        ranks = ranks[:best] + ranks[best + 1 :]
    return None
