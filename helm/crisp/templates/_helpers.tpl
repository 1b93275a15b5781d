{{- define "crisp.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "crisp.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "crisp.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "crisp.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "crisp.selectorLabels" -}}
app.kubernetes.io/name: {{ include "crisp.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "crisp.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "crisp.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "crisp.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "crisp.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "crisp.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- /* 50-helm.yaml: the handlers and the metrics' address, and over them what the values say word for word. */}}
{{- define "crisp.settings" -}}
{{- $settings := dict }}
{{- $handlers := dict }}
{{- range $name, $runtime := .Values.runtimes }}
{{- with $runtime.settings }}
{{- $_ := set $handlers $name . }}
{{- end }}
{{- end }}
{{- if $handlers }}
{{- $_ := set $settings "rund" (dict "runtimes" $handlers) }}
{{- end }}
{{- if .Values.metrics.address }}
{{- $_ := set $settings "crid" (dict "metrics_address" .Values.metrics.address) }}
{{- end }}
{{- $settings = mergeOverwrite $settings (deepCopy .Values.config) -}}
# Written by the Helm release {{ .Release.Namespace }}/{{ .Release.Name }}: a change here does not last.
{{- if $settings }}
{{ toYaml $settings }}
{{- end }}
{{- end }}

{{- /* The port of metrics.address, which ends in it. */}}
{{- define "crisp.metricsPort" -}}
{{- regexFind "[0-9]+$" .Values.metrics.address }}
{{- end }}
