"""Which policy applies to a pod or workload, if any. First that speaks, wins:

1. `disabled` anywhere: annotation of pod or workload, label of the namespace.
2. The annotation of the pod, else of its workload. A name is that policy; `enabled` goes on below.
3. A policy of the namespace whose selector takes the pod, the oldest.
4. Where pod, workload or namespace say `enabled`: the namespace's policy `default`, else the cluster's.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from trail_operator import names
from trail_operator.policy.resource import Selector, TrailPolicy
from trail_operator.reasons import Reason, Skip

ON, OFF = frozenset({"enabled", "true"}), frozenset({"disabled", "false"})

_NAME = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
_POLICY = re.compile(rf"(?:(?P<namespace>{_NAME})/)?(?P<name>{_NAME})")


@dataclass(frozen=True)
class Entry:
    """A TrailPolicy as found in the cluster: usable, or not and why."""

    namespace: str
    name: str
    created: str
    """`metadata.creationTimestamp`, which sorts as text."""
    selector: Selector | None
    policy: TrailPolicy | None
    error: str = ""


Policies = Mapping[tuple[str, str], Entry]
"""By namespace and name."""


@dataclass(frozen=True)
class Asked:
    """What there is to go by: the pod's labels and who says what about `trail.dev/inject`."""

    namespace: str
    labels: Mapping[str, str]
    pod: str | None = None
    workload: str | None = None
    namespace_label: str | None = None

    @property
    def wanted(self) -> bool:
        """Whether pod or workload asked by themselves."""
        return self.pod is not None or self.workload is not None


def resolve(asked: Asked, policies: Policies, default: tuple[str, str] | None) -> TrailPolicy | Skip | None:
    """The policy that applies; a Skip where one was asked for and none can be had; None where nobody asks.

    `default` is namespace and name of the cluster's default policy.
    """
    if skip := _opted_out(asked):
        return skip
    own = next((text.strip() for text in (asked.pod, asked.workload) if text is not None), None)
    if own is not None and own.lower() not in ON:
        return _named(own, asked, policies)
    mine = (e for (namespace, _), e in policies.items() if namespace == asked.namespace)
    if (selected := _oldest(e for e in mine if e.selector and e.selector.matches(asked.labels))) is not None:
        return _usable(selected, asked)
    if own is None and (asked.namespace_label or "").lower() not in ON:
        return None
    for key in ((asked.namespace, names.DEFAULT_POLICY), default):
        if key is not None and (entry := policies.get(key)) is not None:
            return _usable(entry, asked)
    return Skip(
        Reason.NO_POLICY,
        f"no policy applies: make a TrailPolicy called {names.DEFAULT_POLICY} in {asked.namespace}, name one"
        f" in {names.INJECT}, or give the operator a default",
        asked.wanted,
    )


def is_policy(text: str) -> bool:
    """Whether an annotation of this text names a policy: not `enabled`, not `disabled`, and no nonsense."""
    return text.lower() not in ON | OFF and _POLICY.fullmatch(text) is not None


def _opted_out(asked: Asked) -> Skip | None:
    places = (("pod", asked.pod), ("workload", asked.workload), ("namespace", asked.namespace_label))
    for place, text in places:
        if text is not None and text.strip().lower() in OFF:
            return Skip(Reason.OPTED_OUT, f"{names.INJECT} of the {place} is {text.strip()}", asked.wanted)
    return None


def _named(text: str, asked: Asked, policies: Policies) -> TrailPolicy | Skip:
    match = _POLICY.fullmatch(text)
    if match is None:
        return Skip(
            Reason.INVALID_ANNOTATION,
            f"{names.INJECT} is {text[:80]!r}; write enabled, disabled, POLICY or NAMESPACE/POLICY",
        )
    key = (match["namespace"] or asked.namespace, match["name"])
    entry = policies.get(key)
    if entry is None:
        return Skip(Reason.POLICY_NOT_FOUND, f"there is no TrailPolicy {key[0]}/{key[1]}; create it")
    return _usable(entry, asked)


def _usable(entry: Entry, asked: Asked) -> TrailPolicy | Skip:
    if entry.policy is not None:
        return entry.policy
    return Skip(
        Reason.POLICY_INVALID, f"TrailPolicy {entry.namespace}/{entry.name}: {entry.error}", asked.wanted
    )


def _oldest(entries: Iterable[Entry]) -> Entry | None:
    return min(entries, key=lambda e: (e.created, e.name), default=None)
