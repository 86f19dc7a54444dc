{{/* What a schema cannot say, or not clearly. */}}
{{- define "nsa.validate" -}}
{{- $v := .Values -}}
{{- $needed := add $v.preStopSeconds $v.drainTimeoutSeconds 10 -}}
{{- if lt (int $v.terminationGracePeriodSeconds) (int $needed) -}}
{{- fail (printf "terminationGracePeriodSeconds is %d: it must be at least %d, 10 more than preStopSeconds (%d) and drainTimeoutSeconds (%d) together, or running requests are killed" (int $v.terminationGracePeriodSeconds) (int $needed) (int $v.preStopSeconds) (int $v.drainTimeoutSeconds)) -}}
{{- end -}}
{{- with $v.probes.startup -}}
{{- $loading := mul .periodSeconds .failureThreshold -}}
{{- if and (eq $v.kind "Deployment") (lt (int $v.progressDeadlineSeconds) (int $loading)) -}}
{{- fail (printf "progressDeadlineSeconds is %d: it must be at least %d, probes.startup.periodSeconds (%d) times failureThreshold (%d), or an update fails while its model loads" (int $v.progressDeadlineSeconds) (int $loading) (int .periodSeconds) (int .failureThreshold)) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $v.kind "StatefulSet") (ne $v.model.source "download") -}}
{{- fail (printf "kind is StatefulSet, whose volumes keep downloaded models, and model.source is %s: it must be download" $v.model.source) -}}
{{- end -}}
{{- if and (eq $v.model.source "pvc") (not $v.model.pvc.claimName) -}}
{{- fail "model.source is pvc: model.pvc.claimName must name the claim" -}}
{{- end -}}
{{- if and (eq $v.model.source "download") (not (and $v.model.download.url $v.model.download.sha256)) -}}
{{- fail "model.source is download: model.download.url and model.download.sha256 must be set" -}}
{{- end -}}
{{- if and (eq $v.image.tag "latest") (not $v.image.digest) -}}
{{- fail "image.tag is latest: replicas may then differ; name a version, or set image.digest" -}}
{{- end -}}
{{- range $v.extraEnv -}}
{{- if eq .name "HOME" }}{{ fail "extraEnv has HOME, which the chart sets itself" }}{{ end -}}
{{- end -}}
{{- with $v.autoscaling -}}
{{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) -}}
{{- fail (printf "autoscaling.minReplicas is %d: it must not be above maxReplicas, %d" (int .minReplicas) (int .maxReplicas)) -}}
{{- end -}}
{{- if and .enabled (eq .engine "keda") (not .keda.serverAddress) -}}
{{- fail "autoscaling.engine is keda: autoscaling.keda.serverAddress must be the URL of Prometheus" -}}
{{- end -}}
{{- end -}}
{{- if and $v.ingress.enabled (not $v.ingress.hosts) -}}
{{- fail "ingress.enabled: ingress.hosts must have a host" -}}
{{- end -}}
{{- range $route := list "httpRoute" "grpcRoute" -}}
{{- if and (index $v $route).enabled (not (index $v $route).parentRefs) -}}
{{- fail (printf "%s.enabled: %s.parentRefs must name a Gateway" $route $route) -}}
{{- end -}}
{{- end -}}
{{- if and $v.inferencePool.enabled (not $v.inferencePool.endpointPicker.name) -}}
{{- fail "inferencePool.enabled: inferencePool.endpointPicker.name must name the Service of an endpoint picker" -}}
{{- end -}}
{{- end }}
