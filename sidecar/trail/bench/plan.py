"""Which arm runs when: servers alternate, arms rotate, the oracle follows an arm that tells it lengths."""

from collections.abc import Sequence

from trail.bench.config import Arm


def rotate(arms: Sequence[Arm], by: int) -> list[Arm]:
    """The same arms, beginning `by` places later."""
    if not arms:
        return []
    by %= len(arms)
    return [*arms[by:], *arms[:by]]


def repeat_order(arms: Sequence[Arm], repeat: int) -> list[Arm]:
    """Order of arms in one repeat.

    Stock arms and TRAIL arms stay together, since they are two servers; which goes first alternates, so that
    drift of the machine falls on both alike and one engine start serves the end of one repeat and the
    beginning of the next. TRAIL's arms rotate. An oracle that would open the repeat changes places with the
    next arm that is none.
    """
    stock = [a for a in arms if a.stock]
    trail = rotate([a for a in arms if not a.stock], repeat)
    order = [*stock, *trail] if repeat % 2 == 0 else [*trail, *stock]
    if order[0].needs_lengths:
        ready = next((i for i, a in enumerate(order) if not a.needs_lengths), None)
        if ready is None:
            raise ValueError("the oracle takes its lengths from another arm's run; name one more in --arms")
        order[0], order[ready] = order[ready], order[0]
    return order
