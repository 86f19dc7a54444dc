{{/* Where a replica may run. */}}
{{- define "nsa.scheduling" -}}
{{- if .Values.gpu.enabled }}{{ with .Values.gpu.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}{{ end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if or .Values.gpu.enabled .Values.tolerations }}
tolerations:
  {{- if .Values.gpu.enabled }}
  - {key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}
  {{- end }}
  {{- with .Values.tolerations }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end }}
{{- if or .Values.nodeAffinity (ne .Values.podAntiAffinity "none") }}
affinity:
  {{- with .Values.nodeAffinity }}
  nodeAffinity: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if eq .Values.podAntiAffinity "required" }}
  podAntiAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        {{- include "nsa.podSelector" . | nindent 8 }}
  {{- else if eq .Values.podAntiAffinity "preferred" }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          {{- include "nsa.podSelector" . | nindent 10 }}
  {{- end }}
{{- end }}
{{- with .Values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  {{- toYaml (list .) | nindent 2 }}
    {{- include "nsa.podSelector" $ | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}
