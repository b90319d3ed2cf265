"""The annotations that the operator puts into a workload's pod template, and takes out again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trail_operator import names
from trail_operator.admission.confighash import policy_hash
from trail_operator.policy.resource import TrailPolicy
from trail_operator.reasons import Reason, Skip


@dataclass(frozen=True)
class Stamp:
    """The workload's own annotation, handed on to its pods, and the policy's digest. None: not there."""

    inject: str | None = None
    config_hash: str | None = None

    @classmethod
    def of(cls, template_annotations: Mapping[str, str]) -> "Stamp":
        """What a template carries."""
        return cls(
            template_annotations.get(names.STAMPED_INJECT), template_annotations.get(names.STAMPED_HASH)
        )


def desired(
    annotation: str | None,
    outcome: TrailPolicy | Skip | None,
    present: Stamp,
    otherwise: TrailPolicy | Skip | None,
) -> Stamp:
    """The stamp that a template should carry.

    `annotation` is the workload's annotation, `outcome` what becomes of the workload, `otherwise` what would
    become of it without that. A policy that has become invalid changes nothing: a slip in it must not
    restart models.
    """
    if isinstance(outcome, TrailPolicy):
        return Stamp(annotation, policy_hash(outcome))
    if outcome is not None and outcome.reason is Reason.POLICY_INVALID:
        return present
    opted_out = outcome is not None and outcome.reason is Reason.OPTED_OUT and annotation is not None
    # Selector or namespace would inject the pods: only then must they hear of the workload's annotation.
    return Stamp(annotation if opted_out and isinstance(otherwise, TrailPolicy) else None, None)


def patch(present: Stamp, wanted: Stamp, resource_version: str) -> dict[str, Any] | None:
    """The JSON merge patch of a workload from one stamp to another; None where nothing is to do.

    It fails with a conflict on any other version than `resource_version`.
    """
    if present == wanted:
        return None
    changed = {
        key: new
        for key, old, new in (
            (names.STAMPED_INJECT, present.inject, wanted.inject),
            (names.STAMPED_HASH, present.config_hash, wanted.config_hash),
        )
        if old != new
    }
    return {
        "metadata": {"resourceVersion": resource_version},
        "spec": {"template": {"metadata": {"annotations": changed}}},
    }
