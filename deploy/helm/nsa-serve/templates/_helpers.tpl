{{- define "nsa.fullname" -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- .Values.fullnameOverride | default $name | trunc 45 | trimSuffix "-" -}}
{{- end }}

{{- define "nsa.instanceLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* Labels of the server's pods and of its Service; nothing else has all of them. */}}
{{- define "nsa.selectorLabels" -}}
{{ include "nsa.instanceLabels" . }}
app.kubernetes.io/component: server
{{- end }}

{{/* Labels of objects that are neither. */}}
{{- define "nsa.labels" -}}
{{ include "nsa.instanceLabels" . }}
{{ include "nsa.chartLabels" . }}
{{- end }}

{{- define "nsa.chartLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* Labels or annotations: the chart's `own`, as YAML, and `more` of the values at `path`. */}}
{{- define "nsa.withMore" -}}
{{- $own := fromYaml .own -}}
{{- range $name, $_ := .more -}}
{{- if hasKey $own $name }}{{ fail (printf "%s has %s, which the chart sets itself" $.path $name) }}{{ end -}}
{{- end -}}
{{- toYaml (merge $own .more) -}}
{{- end }}

{{- define "nsa.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "nsa.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end }}

{{- define "nsa.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end -}}
{{- end -}}
{{- end }}

{{- define "nsa.modelPath" -}}
{{- with .Values.model -}}
{{- if eq .source "bundled" }}{{ .bundledPath }}
{{- else if eq .source "pvc" }}{{ list "/models" .pvc.path | compact | join "/" }}
{{- else }}{{ list "/models/model" .download.path | compact | join "/" }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* A flag's value as the server reads it: on and off are booleans in YAML, and numbers may be 1e+07 there. */}}
{{- define "nsa.flagValue" -}}
{{- if kindIs "bool" . }}{{ ternary "on" "off" . }}
{{- else if and (kindIs "float64" .) (eq . (floor .)) }}{{ printf "%.0f" . }}
{{- else }}{{ . }}
{{- end -}}
{{- end }}

{{- define "nsa.scheme" -}}
{{- ternary "https" "http" (ne .Values.tls.existingSecret "") -}}
{{- end }}

{{/* The port of the URL of a model. */}}
{{- define "nsa.downloadPort" -}}
{{- $url := urlParse .Values.model.download.url -}}
{{- regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (ternary "80" "443" (eq $url.scheme "http")) -}}
{{- end }}

{{/* A topologySpreadConstraint or affinity term of Kubernetes wants to be told which pods it is about. */}}
{{- define "nsa.podSelector" -}}
labelSelector:
  matchLabels: {{- include "nsa.selectorLabels" . | nindent 4 }}
matchLabelKeys: [{{ ternary "pod-template-hash" "controller-revision-hash" (eq .Values.kind "Deployment") }}]
{{- end }}

{{- define "nsa.pullSecrets" -}}
{{- with .Values.image.pullSecrets -}}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "nsa.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "nsa.podSecurity" -}}
{{- $own := dict "runAsNonRoot" true "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- toYaml (merge $own .Values.podSecurityContext) -}}
{{- end }}

{{- define "nsa.probe" -}}
httpGet:
  path: {{ .path }}
  port: http
  scheme: {{ include "nsa.scheme" .root | upper }}
{{ toYaml .timing }}
{{- end }}
