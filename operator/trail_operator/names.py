"""The one place that knows the spelling of what the operator reads and writes in a cluster."""

GROUP, VERSION, KIND, PLURAL = "trail.dev", "v1alpha1", "TrailPolicy", "trailpolicies"
API_VERSION = f"{GROUP}/{VERSION}"

INJECT = f"{GROUP}/inject"
"""Annotation of pods, Deployments and StatefulSets; label of namespaces (`enabled`, `disabled`)."""
CONTAINER = f"{GROUP}/container"
"""Annotation of a pod: which container is vLLM's, where that is not plain to see."""
PYTHON_PATH = f"{GROUP}/python-path"
"""Annotation of a pod: the PYTHONPATH that its vLLM image sets by itself, which nobody can see from here."""
STATUS = f"{GROUP}/status"
"""Annotation that the webhook leaves on a pod: what it did, or why it did nothing."""
INJECTED_LABEL = f"{GROUP}/injected"
"""Label `true` of injected pods, for watches, monitors and network policies."""
STAMPED_INJECT = f"{GROUP}/workload-inject"
"""Annotation that the operator puts into a pod template: the workload's own `trail.dev/inject`."""
STAMPED_HASH = f"{GROUP}/config-hash"
"""Annotation that the operator puts into a pod template: a change of it rolls the pods."""

DEFAULT_POLICY = "default"
"""Name of the policy that holds for a namespace where no other does."""

SIDECAR, ENGINE, PREDICTOR = "trail-sidecar", "trail-engine", "trail-predictor"
"""Our containers: the sidecar, the copy of the engine plugin, the copy of a predictor out of its image."""
CONTAINERS = (SIDECAR, ENGINE, PREDICTOR)

VOLUME_RUN, VOLUME_ENGINE, VOLUME_PREDICTOR, VOLUME_TMP = (
    "trail-run",
    "trail-engine",
    "trail-predictor",
    "trail-tmp",
)
VOLUMES = (VOLUME_RUN, VOLUME_ENGINE, VOLUME_PREDICTOR, VOLUME_TMP)

RUN_DIR = "/run/trail"
"""TRAIL_DIR in both containers; not below /dev/shm, which may be the user's own volume."""
ENGINE_DIR = "/opt/trail/engine"
ENGINE_PATH = f"{ENGINE_DIR}/lib"
"""On vLLM's PYTHONPATH. It appears whole, by rename, or not at all."""
PREDICTOR_DIR = "/opt/trail/predictor"
PREDICTOR_PATH = f"{PREDICTOR_DIR}/artefact"
"""Where an artefact that is copied or fetched appears, whole or not at all."""

DECISION_LOG = "/tmp/decisions.jsonl"  # noqa: S108 - of our own container
"""Where the sidecar keeps its decision log, on its own volume for /tmp."""

PORT_NAME = "trail-metrics"
