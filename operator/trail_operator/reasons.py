"""Why a pod or workload is left as it is: the complete list, the same in status, Events, metrics and docs."""

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Machine-readable reasons. docs/kubernetes/injection.md has an entry for each."""

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


@dataclass(frozen=True)
class Skip:
    """Nothing is injected: the reason, and a sentence that says what to do.

    `wanted` is false where neither pod nor workload asked for TRAIL by themselves: nobody is told then that
    a pod without vLLM has no vLLM.
    """

    reason: Reason
    message: str
    wanted: bool = True
