"""An OTLP collector over gRPC that prints each span as a line of JSON. It runs in the sidecar's image."""

import json
from concurrent import futures
from typing import Any

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class Traces(trace_service_pb2_grpc.TraceServiceServicer):
    """Prints spans."""

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        for resource in request.resource_spans:
            service = next(
                (a.value.string_value for a in resource.resource.attributes if a.key == "service.name"), ""
            )
            for scope in resource.scope_spans:
                for span in scope.spans:
                    print(json.dumps({
                        "service": service, "name": span.name, "trace": span.trace_id.hex(),
                        "parent": span.parent_span_id.hex(),
                        "attributes": {a.key: str(a.value).strip() for a in span.attributes},
                    }), flush=True)  # fmt: skip
        return trace_service_pb2.ExportTraceServiceResponse()


class Logs(logs_service_pb2_grpc.LogsServiceServicer):
    """Takes log records."""

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        return logs_service_pb2.ExportLogsServiceResponse()


class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    """Takes metrics."""

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        return metrics_service_pb2.ExportMetricsServiceResponse()


server = grpc.server(futures.ThreadPoolExecutor(4))
trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)
logs_service_pb2_grpc.add_LogsServiceServicer_to_server(Logs(), server)
metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)
server.add_insecure_port("0.0.0.0:4317")
server.start()
print(json.dumps({"name": "listening"}), flush=True)
server.wait_for_termination()
