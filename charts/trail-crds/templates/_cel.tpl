{{/* Takes CEL rules out of a schema, at any depth, in place. Servers before 1.25 refuse what they do not know. */}}
{{- define "trail-crds.withoutCel" -}}
{{- if kindIs "map" . -}}
{{- $_ := unset . "x-kubernetes-validations" -}}
{{- range . -}}{{- include "trail-crds.withoutCel" . -}}{{- end -}}
{{- else if kindIs "slice" . -}}
{{- range . -}}{{- include "trail-crds.withoutCel" . -}}{{- end -}}
{{- end -}}
{{- end -}}
