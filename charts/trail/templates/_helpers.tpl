{{/* Name of everything: the release's, with "trail" in it. */}}
{{- define "trail.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 43 | trimSuffix "-" -}}
{{- else if contains "trail" .Release.Name -}}
{{- .Release.Name | trunc 43 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-trail" .Release.Name | trunc 43 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "trail.operator" -}}{{ include "trail.fullname" . }}-operator{{- end -}}
{{- define "trail.redis" -}}{{ include "trail.fullname" . }}-redis{{- end -}}

{{- define "trail.redisSecret" -}}{{ include "trail.redis" . }}-access{{- end -}}

{{/* Cluster-wide objects of two releases of one name in two namespaces must not meet. */}}
{{- define "trail.clusterName" -}}{{ .Release.Namespace }}-{{ include "trail.operator" . }}{{- end -}}

{{- define "trail.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "trail.operator" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- define "trail.certificate" -}}
{{- if eq .Values.certificates.mode "secret" -}}
{{- required "certificates.secretName is needed with certificates.mode=secret" .Values.certificates.secretName -}}
{{- else -}}
{{ include "trail.operator" . }}-certificate
{{- end -}}
{{- end -}}

{{/* Version of the server. */}}
{{- define "trail.kubeVersion" -}}{{ .Values.kubeVersion | default .Capabilities.KubeVersion.Version }}{{- end -}}

{{/* Call with a dict of root and component. */}}
{{- define "trail.selector" -}}
app.kubernetes.io/name: trail
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "trail.labels" -}}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version | replace "+" "_" }}
{{ include "trail.selector" . }}
app.kubernetes.io/part-of: trail
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Reference of an image: a dict of root and image. */}}
{{- define "trail.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "trail.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
readOnlyRootFilesystem: true
runAsNonRoot: true
{{- end -}}

{{- define "trail.redisUrl" -}}
{{- if eq .Values.redis.mode "embedded" -}}
redis://{{ include "trail.redis" . }}.{{ .Release.Namespace }}.svc:6379/0
{{- else if eq .Values.redis.mode "external" -}}
{{- .Values.redis.external.url -}}
{{- end -}}
{{- end -}}

{{- define "trail.defaultPolicy" -}}
{{- if .Values.injection.defaultPolicy -}}
{{- .Values.injection.defaultPolicy -}}
{{- else if .Values.clusterPolicy.spec -}}
{{ .Release.Namespace }}/{{ .Values.clusterPolicy.name }}
{{- end -}}
{{- end -}}

{{/* What values.schema.json cannot say. */}}
{{- define "trail.check" -}}
{{- with .Values.redis -}}
{{- if eq .mode "external" -}}
{{- if not (or .external.url .external.secretName) -}}
{{- fail "redis.mode=external needs redis.external.url or redis.external.secretName" -}}
{{- end -}}
{{- if and .external.secretName (not .external.url) (not .external.sidecarSecretName) -}}
{{- fail "redis.external.secretName is the operator's alone: give sidecars redis.external.url or redis.external.sidecarSecretName, or its password would stand in every pod" -}}
{{- end -}}
{{- if contains "@" .external.url -}}
{{- fail "redis.external.url must hold no password, it stands in every pod: use redis.external.secretName and redis.external.sidecarSecretName" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The operator's configuration. */}}
{{- define "trail.operatorEnv" -}}
- {name: TRAIL_OPERATOR_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
- {name: TRAIL_OPERATOR_IDENTITY, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: TRAIL_OPERATOR_LEASE, value: {{ include "trail.operator" . | quote }}}
- {name: TRAIL_OPERATOR_DEFAULT_POLICY, value: {{ include "trail.defaultPolicy" . | quote }}}
- {name: TRAIL_OPERATOR_SIDECAR_IMAGE, value: {{ include "trail.image" (dict "root" . "image" .Values.images.sidecar) | quote }}}
- {name: TRAIL_OPERATOR_ENGINE_IMAGE, value: {{ include "trail.image" (dict "root" . "image" .Values.images.engine) | quote }}}
- {name: TRAIL_OPERATOR_IMAGE_PULL_POLICY, value: {{ .Values.images.pullPolicy | quote }}}
- {name: TRAIL_OPERATOR_USER, value: {{ .Values.injection.user | toString | quote }}}
- {name: TRAIL_OPERATOR_GROUP, value: {{ .Values.injection.group | int | quote }}}
- {name: TRAIL_OPERATOR_NATIVE_SIDECARS, value: {{ .Values.operator.nativeSidecars | quote }}}
- {name: TRAIL_OPERATOR_WITHDRAW_AFTER, value: {{ .Values.operator.withdrawAfterSeconds | int | quote }}}
- {name: TRAIL_OPERATOR_WEBHOOK_CONFIGURATION, value: {{ include "trail.clusterName" . | quote }}}
- {name: TRAIL_OPERATOR_WEBHOOK_PORT, value: {{ .Values.webhook.port | int | quote }}}
- {name: TRAIL_OPERATOR_LOG_LEVEL, value: {{ .Values.operator.logLevel | quote }}}
{{- with .Values.operator.otlpEndpoint }}
- {name: TRAIL_OPERATOR_OTLP_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- if .Values.webhook.enabled }}
- {name: TRAIL_OPERATOR_CERTIFICATE, value: /certificate/tls.crt}
- {name: TRAIL_OPERATOR_KEY, value: /certificate/tls.key}
{{- end }}
{{- if eq .Values.redis.mode "embedded" }}
- {name: TRAIL_OPERATOR_REDIS_URL, valueFrom: {secretKeyRef: {name: {{ include "trail.redisSecret" . }}, key: url}}}
- {name: TRAIL_OPERATOR_SIDECAR_REDIS_KEY, valueFrom: {secretKeyRef: {name: {{ include "trail.redisSecret" . }}, key: key}}}
{{- else if and (eq .Values.redis.mode "external") .Values.redis.external.secretName }}
- {name: TRAIL_OPERATOR_REDIS_URL, valueFrom: {secretKeyRef: {name: {{ .Values.redis.external.secretName }}, key: url}}}
{{- else }}
- {name: TRAIL_OPERATOR_REDIS_URL, value: {{ include "trail.redisUrl" . | quote }}}
{{- end }}
- {name: TRAIL_OPERATOR_SIDECAR_REDIS_URL, value: {{ include "trail.redisUrl" . | quote }}}
{{- if and (eq .Values.redis.mode "external") .Values.redis.external.sidecarSecretName }}
- {name: TRAIL_OPERATOR_SIDECAR_REDIS_SECRET, value: {{ .Values.redis.external.sidecarSecretName | quote }}}
{{- end }}
{{- end -}}
