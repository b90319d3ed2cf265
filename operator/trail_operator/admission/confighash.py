"""Two digests of an injection: what rolls running pods, and what was put into a pod."""

import dataclasses
import hashlib
import json
from typing import Any

from trail_operator.policy.resource import TrailPolicy
from trail_operator.settings import InjectionSettings

RECIPE = 1
"""Raised where injection itself changes so much that running pods should follow."""


def policy_hash(policy: TrailPolicy) -> str:
    """Digest, 16 hexadecimal digits, of what running pods must be restarted for.

    Without c, which reaches them through Redis; without the selector, which says where and not what; without
    the operator's own images, so that upgrading the operator restarts nobody's model.
    """
    return _digest([RECIPE, _essence(policy)])


def injection_hash(policy: TrailPolicy, settings: InjectionSettings) -> str:
    """Digest, 16 hexadecimal digits, of all that an injected pod was given."""
    return _digest([RECIPE, _essence(policy), dataclasses.asdict(settings)])


def _essence(policy: TrailPolicy) -> dict[str, Any]:
    essence = _stated(policy)
    for left_out in ("selector", "c"):
        del essence[left_out]
    del essence["scheduling"]["c"]
    # A dictionary does not say which kind of predictor it was.
    essence["predictor_kind"] = type(policy.predictor).__name__
    return essence


def _stated(value: Any) -> dict[str, Any]:
    """A dataclass's fields without those at their default: one that a later version adds rolls no pods."""
    found = {}
    for field in dataclasses.fields(value):
        content = getattr(value, field.name)
        if field.default is not dataclasses.MISSING and content == field.default:
            continue
        found[field.name] = _stated(content) if dataclasses.is_dataclass(content) else content
    return found


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
