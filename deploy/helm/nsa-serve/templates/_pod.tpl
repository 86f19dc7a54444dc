{{/* The pod of a replica, as template of a Deployment or StatefulSet. */}}
{{- define "nsa.pod" -}}
metadata:
  labels: {{- include "nsa.withMore" (dict "own" (include "nsa.podLabels" .) "more" .Values.podLabels "path" "podLabels") | nindent 4 }}
  annotations: {{- include "nsa.withMore" (dict "own" (include "nsa.podAnnotations" .) "more" .Values.podAnnotations "path" "podAnnotations") | nindent 4 }}
spec:
  serviceAccountName: {{ include "nsa.serviceAccountName" . | quote }}
  automountServiceAccountToken: false
  enableServiceLinks: false  # a Service called nsa-http would set NSA_HTTP_PORT
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  {{- include "nsa.pullSecrets" . | nindent 2 }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  securityContext: {{- include "nsa.podSecurity" . | nindent 4 }}
  {{- include "nsa.scheduling" . | trim | nindent 2 }}
  {{- if eq .Values.model.source "download" }}
  initContainers:
    - {{ include "nsa.downloadContainer" . | nindent 6 | trim }}
  {{- end }}
  containers:
    - {{ include "nsa.serverContainer" . | nindent 6 | trim }}
  volumes: {{- include "nsa.volumes" . | nindent 4 }}
{{- end }}

{{- define "nsa.podLabels" -}}
{{ include "nsa.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
# Endpoint pickers of the inference gateway read the metrics of this engine.
inference.networking.k8s.io/engine-type: vllm
llm-d.ai/engine-type: vllm
{{- end }}

{{- define "nsa.podAnnotations" -}}
checksum/config: {{ include "nsa.configData" . | sha256sum | quote }}
{{- end }}

{{- define "nsa.serverContainer" -}}
name: server
image: {{ include "nsa.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: {{- include "nsa.args" . | nindent 2 }}
env:
  - name: HOME  # where CUDA keeps what it compiles
    value: /tmp
  {{- with .Values.extraEnv }}{{ toYaml . | nindent 2 }}{{ end }}
ports:
  - {name: http, containerPort: 8000, protocol: TCP}
  - {name: grpc, containerPort: 9000, protocol: TCP}
startupProbe: {{- include "nsa.probe" (dict "root" . "path" "/health/ready" "timing" .Values.probes.startup) | nindent 2 }}
readinessProbe: {{- include "nsa.probe" (dict "root" . "path" "/health/ready" "timing" .Values.probes.readiness) | nindent 2 }}
livenessProbe: {{- include "nsa.probe" (dict "root" . "path" "/health" "timing" .Values.probes.liveness) | nindent 2 }}
lifecycle:
  preStop:
    sleep:
      seconds: {{ .Values.preStopSeconds }}
{{- $resources := deepCopy .Values.resources }}
{{- if .Values.gpu.enabled }}
{{- $resources = mergeOverwrite $resources (dict "limits" (dict .Values.gpu.resource 1)) }}
{{- end }}
resources: {{- toYaml $resources | nindent 2 }}
securityContext: {{- include "nsa.containerSecurity" . | nindent 2 }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  {{- if ne .Values.model.source "bundled" }}
  - {name: models, mountPath: /models, readOnly: true}
  {{- end }}
  {{- if .Values.model.chatTemplate }}
  - {name: config, mountPath: /etc/nsa-serve/config, readOnly: true}
  {{- end }}
  {{- if .Values.apiKeys.existingSecret }}
  - {name: api-keys, mountPath: /etc/nsa-serve/api-keys, readOnly: true}
  {{- end }}
  {{- if .Values.tls.existingSecret }}
  - {name: tls, mountPath: /etc/nsa-serve/tls, readOnly: true}
  {{- end }}
{{- end }}

{{- define "nsa.args" -}}
- {{ printf "--model=%s" (include "nsa.modelPath" .) | quote }}
- {{ printf "--host=%s" .Values.host | quote }}
- --http-port=8000
- --grpc-port=9000
- {{ printf "--device=%s" (ternary "cuda" "cpu" .Values.gpu.enabled) | quote }}
- {{ printf "--drain-timeout=%d" (int .Values.drainTimeoutSeconds) | quote }}
{{- with .Values.model.name }}
- {{ printf "--served-model-name=%s" . | quote }}
{{- end }}
{{- if .Values.model.chatTemplate }}
- --chat-template=/etc/nsa-serve/config/chat_template.jinja
{{- end }}
{{- with .Values.apiKeys }}{{ if .existingSecret }}
- {{ printf "--api-key-file=/etc/nsa-serve/api-keys/%s" .key | quote }}
{{- end }}{{ end }}
{{- if .Values.tls.existingSecret }}
- --tls-cert=/etc/nsa-serve/tls/tls.crt
- --tls-key=/etc/nsa-serve/tls/tls.key
{{- end }}
{{- range $flag, $value := .Values.server }}
- {{ printf "--%s=%s" $flag (include "nsa.flagValue" $value) | quote }}
{{- end }}
{{- end }}

{{- define "nsa.downloadContainer" -}}
name: download-model
image: {{ .Values.tools.image | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
command: [sh, /etc/nsa-serve/config/download.sh]
env:
  - {name: MODEL_DIR, value: /models}
  - {name: MODEL_URL, value: {{ .Values.model.download.url | quote }}}
  - {name: MODEL_SHA256, value: {{ .Values.model.download.sha256 | quote }}}
  {{- with .Values.model.download.headerSecret }}{{ if .name }}
  - {name: HEADER_FILE, value: {{ printf "/etc/nsa-serve/header/%s" .key | quote }}}
  {{- end }}{{ end }}
resources: {{- toYaml .Values.tools.resources | nindent 2 }}
securityContext: {{- include "nsa.containerSecurity" . | nindent 2 }}
volumeMounts:
  - {name: models, mountPath: /models}
  - {name: config, mountPath: /etc/nsa-serve/config, readOnly: true}
  {{- if .Values.model.download.headerSecret.name }}
  - {name: header, mountPath: /etc/nsa-serve/header, readOnly: true}
  {{- end }}
{{- end }}

{{- define "nsa.volumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: {{ .Values.tmpSize | quote }}
{{- if eq .Values.model.source "pvc" }}
- name: models
  persistentVolumeClaim:
    claimName: {{ .Values.model.pvc.claimName | quote }}
    readOnly: true
{{- else if and (eq .Values.model.source "download") (eq .Values.kind "Deployment") }}
- name: models
  emptyDir:
    sizeLimit: {{ .Values.model.download.size | quote }}
{{- end }}
{{- if include "nsa.configData" . }}
- name: config
  configMap:
    name: {{ include "nsa.fullname" . | quote }}
{{- end }}
{{- $secrets := dict "api-keys" .Values.apiKeys.existingSecret "tls" .Values.tls.existingSecret }}
{{- if eq .Values.model.source "download" }}
{{- $_ := set $secrets "header" .Values.model.download.headerSecret.name }}
{{- end }}
{{- range $name, $secret := $secrets }}
{{- if $secret }}
- name: {{ $name }}
  secret:
    secretName: {{ $secret | quote }}
    defaultMode: 0440
{{- end }}
{{- end }}
{{- end }}
