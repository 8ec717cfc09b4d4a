{{- define "name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "fullname" -}}
{{- $name := include "name" . -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{ .Values.fullnameOverride | default $full | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "selector" -}}
app.kubernetes.io/name: {{ include "name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "labels" -}}
{{ include "selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "metadata" -}}
name: {{ include "fullname" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "labels" . | nindent 2 }}
{{- end }}

{{- define "serviceAccountName" -}}
{{ .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "fullname" .) "default") }}
{{- end }}

{{- define "image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/* Settings file: the values plus the paths of mounted files. */}}
{{- define "settings" -}}
{{- $folder := "/etc/thousandeyes-exporter" }}
{{- $api := dict }}
{{- if and .Values.token.secretName (not .Values.demo) }}
{{- $_ := set $api "token_file" (printf "%s/token" $folder) }}
{{- end }}
{{- if .Values.authorities.configMapName }}
{{- $_ := set $api "ca_file" (printf "%s/ca.crt" $folder) }}
{{- end }}
{{- $metrics := dict }}
{{- if .Values.agentNamesKey.secretName }}
{{- $_ := set $metrics "agent_names_key_file" (printf "%s/agent-names-key" $folder) }}
{{- end }}
{{- $web := dict "listen_address" ":9350" }}
{{- if .Values.webConfig.secretName }}
{{- $_ := set $web "config_file" (printf "%s-web/%s" $folder .Values.webConfig.key) }}
{{- end }}
{{- $files := dict "web" $web }}
{{- if $api }}{{ $_ := set $files "api" $api }}{{ end }}
{{- if $metrics }}{{ $_ := set $files "metrics" $metrics }}{{ end }}
{{- mustMergeOverwrite (deepCopy .Values.settings) $files | toYaml }}
{{- end }}

{{/* Probe of a path. With webConfig, TLS or basic authentication may be required, which the script in the image handles. */}}
{{- define "probe" -}}
{{- if .webConfig -}}
exec:
  command: [python, /opt/exporter/healthy.py, {{ .path }}]
{{- else -}}
httpGet:
  path: {{ .path }}
  port: metrics
{{- end }}
timeoutSeconds: 5
{{- end }}
