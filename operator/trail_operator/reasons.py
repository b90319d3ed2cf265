"""Words that the operator says things by: the complete lists, for status, Events, metrics and docs alike."""

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why a pod or workload is left as it is. docs/kubernetes/troubleshoot.md has an entry for each."""

    OPTED_OUT = "OptedOut"
    INVALID_ANNOTATION = "InvalidAnnotation"
    POLICY_NOT_FOUND = "PolicyNotFound"
    POLICY_INVALID = "PolicyInvalid"
    NO_POLICY = "NoPolicy"
    NO_VLLM_CONTAINER = "NoVllmContainer"
    SEVERAL_VLLM_CONTAINERS = "SeveralVllmContainers"
    CONTAINER_NOT_FOUND = "ContainerNotFound"
    HOST_NETWORK = "HostNetwork"
    RUNS_TO_COMPLETION = "RunsToCompletion"
    WINDOWS = "Windows"
    PYTHON_PATH = "PythonPathNotExtendable"
    PLUGINS = "PluginListNotExtendable"
    ENVIRONMENT_TAKEN = "EnvironmentTaken"
    NAME_TAKEN = "NameTaken"
    PATH_TAKEN = "PathTaken"
    PORT_TAKEN = "PortTaken"
    WITHDRAWN = "Withdrawn"
    OWNED_WORKLOAD = "OwnedWorkload"
    INTERNAL_ERROR = "InternalError"


class ConditionReason(StrEnum):
    """Reasons of the conditions of a TrailPolicy. docs/kubernetes/troubleshoot.md has an entry for each."""

    ACCEPTED = "Accepted"
    INVALID_SPEC = "InvalidSpec"
    ROLLING_OUT = "RollingOut"
    STARTING = "Starting"
    SETTLED = "Settled"
    WITHDRAWN = "Withdrawn"
    OPERATOR_FAILED = "OperatorFailed"
    LOOP_FAILED = "LoopFailed"
    FALLING_BACK = "FallingBack"
    AS_EXPECTED = "AsExpected"


class BlockReason(StrEnum):
    """What of ours keeps a pod from starting: in Events, `status.withdrawn` and a metric."""

    IMAGE_PULL_FAILED = "ImagePullFailed"
    CONTAINER_FAILED = "ContainerFailed"
    VOLUME_MISSING = "VolumeMissing"


class EventReason(StrEnum):
    """Events on workloads that say what was done; all others have the reason of a skip or of a block."""

    ADDED = "TrailAdded"
    CHANGED = "TrailChanged"
    REMOVED = "TrailRemoved"
    C = "TrailC"


@dataclass(frozen=True)
class Skip:
    """Nothing is injected: the reason, and a sentence that says what to do.

    `wanted` is false where neither pod nor workload asked for TRAIL by themselves: nobody is told then that
    a pod without vLLM has no vLLM.
    """

    reason: Reason
    message: str
    wanted: bool = True
