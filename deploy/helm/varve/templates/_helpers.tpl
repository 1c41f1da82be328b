{{/* With the longest ending, -decommission, no more than the 63 letters that Kubernetes takes. */}}
{{- define "varve.name" -}}
{{- if or (eq .Release.Name "varve") (hasPrefix "varve-" .Release.Name) }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-varve" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "varve.selector" -}}
app.kubernetes.io/name: varve
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "varve.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{ include "varve.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "varve.image" -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "varve.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "varve.name" .) }}{{ else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{- define "varve.speaksTls" -}}
{{- $protocols := list .Values.listeners.client.protocol .Values.listeners.broker.protocol -}}
{{- if .Values.listeners.external.enabled }}{{ $protocols = append $protocols .Values.listeners.external.protocol }}{{ end -}}
{{- range $protocols }}{{ if has . (list "SSL" "SASL_SSL") }}yes{{ end }}{{ end -}}
{{- end }}

{{- define "varve.tlsSecret" -}}
{{- if .Values.tls.certManager.enabled }}{{ .Values.tls.secretName | default (printf "%s-tls" (include "varve.name" .)) }}{{ else }}{{ .Values.tls.secretName }}{{ end }}
{{- end }}

{{/* Where brokers connect to each other, by the names that are advertised and stand in their certificates. */}}
{{- define "varve.brokers" -}}
{{- $name := include "varve.name" . -}}
{{- $brokers := list -}}
{{- range $ordinal := until (int .Values.replicas) -}}
{{- $brokers = append $brokers (printf "%s-%d.%s-headless.%s.svc:%v" $name $ordinal $name $.Release.Namespace $.Values.listeners.broker.port) -}}
{{- end -}}
{{ join "," $brokers }}
{{- end }}

{{/* The listener that the canary connects to: it has the brokers' certificate and login, and none of a client. */}}
{{- define "varve.canaryListener" -}}
{{- if and (eq .Values.listeners.client.protocol "PLAINTEXT") (eq .Values.listeners.broker.protocol "PLAINTEXT") }}client{{ else }}broker{{ end }}
{{- end }}

{{/* A setting as a whole number: what config says, or else what the chart or the node takes. */}}
{{- define "varve.setting" -}}
{{- $default := .default -}}
{{- if hasKey .root.Values.config .name }}{{ get .root.Values.config .name | toString | float64 | int64 }}{{ else }}{{ $default }}{{ end -}}
{{- end }}

{{/* What would start and not work is refused here, with the value that is missing. */}}
{{- define "varve.check" -}}
{{- if not (regexMatch "^[a-z][-a-z0-9]*$" .Release.Name) }}{{ fail (printf "the release's name %s begins services' names, which begin with a letter and have no dots" .Release.Name) }}{{ end }}
{{- if and (gt (int .Values.replicas) 1) (not .Values.etcd.endpoints) }}{{ fail "replicas above 1 need etcd.endpoints: the brokers agree there" }}{{ end }}
{{- if and (gt (int .Values.replicas) 1) (not .Values.objectStore.url) }}{{ fail "replicas above 1 need objectStore.url: all brokers share one archive" }}{{ end }}
{{- if and (include "varve.speaksTls" .) (not (include "varve.tlsSecret" .)) }}{{ fail "a listener speaks TLS: tls.secretName or tls.certManager.enabled says with which certificate" }}{{ end }}
{{- if and .Values.listeners.external.enabled (not (contains "{ordinal}" .Values.listeners.external.host)) }}{{ fail "listeners.external.host must have {ordinal} in it: each broker is reached under a name of its own" }}{{ end }}
{{- if and .Values.listeners.external.sourceRanges (ne .Values.listeners.external.serviceType "LoadBalancer") }}{{ fail "listeners.external.sourceRanges are for serviceType LoadBalancer: Kubernetes refuses them for others" }}{{ end }}
{{- if and (eq .Values.rack.from "initContainer") (not .Values.rack.initContainer.image) }}{{ fail "rack.from=initContainer needs rack.initContainer.image, with kubectl and a shell" }}{{ end }}
{{- if and (has .Values.listeners.broker.protocol (list "SSL" "SASL_SSL")) (not .Values.tls.trustStoreFile) }}{{ fail "listeners.broker.protocol needs tls.trustStoreFile: brokers look at each other's certificates" }}{{ end }}
{{- if and .Values.etcd.tls.enabled (not .Values.etcd.tls.secretName) }}{{ fail "etcd.tls.enabled needs etcd.tls.secretName" }}{{ end }}
{{- $zones := eq .Values.rack.label "topology.kubernetes.io/zone" }}
{{- if and (eq .Values.rack.from "podLabel") $zones (semverCompare "<1.35.0-0" .Capabilities.KubeVersion.Version) }}{{ fail (printf "rack.from=podLabel needs Kubernetes 1.35, which copies a node's zone to its pods, and this is %s: replicas would lie anywhere. rack.from=initContainer asks for the zone, none does without" .Capabilities.KubeVersion.Version) }}{{ end }}
{{- range $name, $default := dict "default.replication.factor" 1 "transaction.state.log.replication.factor" 1 "share.coordinator.state.topic.replication.factor" 1 }}
{{- $factor := include "varve.setting" (dict "root" $ "name" $name "default" $default) | int }}
{{- if gt $factor (int $.Values.replicas) }}{{ fail (printf "config.%s is %d, and replicas %d: no such topic could be made" $name $factor (int $.Values.replicas)) }}{{ end }}
{{- end }}
{{- $factor := include "varve.setting" (dict "root" . "name" "default.replication.factor" "default" 1) | int }}
{{- $insync := include "varve.setting" (dict "root" . "name" "min.insync.replicas" "default" 1) | int }}
{{- if gt $insync $factor }}{{ fail (printf "config.min.insync.replicas is %d, and config.default.replication.factor %d: nobody could write with acks=all" $insync $factor) }}{{ end }}
{{- $stop := div (add (include "varve.setting" (dict "root" . "name" "varve.shutdown.timeout.ms" "default" 30000) | int) 999) 1000 }}
{{- $wait := ternary (int .Values.preStopWaitSeconds) 0 (gt (int .Values.replicas) 1) }}
{{- if le (int .Values.terminationGracePeriodSeconds) (add $wait (int .Values.preStopSeconds) $stop | int) }}{{ fail (printf "terminationGracePeriodSeconds is %d, no more than preStopWaitSeconds, preStopSeconds and varve.shutdown.timeout.ms together: brokers would be killed while they stop" (int .Values.terminationGracePeriodSeconds)) }}{{ end }}
{{- if and .Values.etcd.user (not .Values.etcd.passwordSecretName) }}{{ fail "etcd.user needs etcd.passwordSecretName" }}{{ end }}
{{- end }}
