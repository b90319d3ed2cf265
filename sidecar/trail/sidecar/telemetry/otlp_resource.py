"""Who sends metrics and traces, in OpenTelemetry's terms."""

from collections.abc import Mapping

from opentelemetry.sdk.resources import OTELResourceDetector, Resource

import trail


def resource_of(place: Mapping[str, str]) -> Resource:
    """The sidecar at `place`; OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME go before what is known here."""
    own = {"service.name": "trail-sidecar", "service.version": trail.__version__, **place}
    return Resource(own).merge(OTELResourceDetector().detect())
