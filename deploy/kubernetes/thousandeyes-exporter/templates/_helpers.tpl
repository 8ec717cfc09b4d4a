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

{{/* Labels of an object: `root`, and its own `labels`. */}}
{{- define "labels" -}}
{{- $chart := dict
  "app.kubernetes.io/version" .root.Chart.AppVersion
  "app.kubernetes.io/managed-by" .root.Release.Service
  "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_") }}
{{- $own := .labels | default dict }}
{{- mustMerge (include "selector" .root | fromYaml) $chart $own .root.Values.commonLabels | toYaml }}
{{- end }}

{{/* Annotations of an object, if there are any: `root`, and its own `annotations`. */}}
{{- define "annotations" -}}
{{- with mustMerge (dict) (.annotations | default dict) .root.Values.commonAnnotations -}}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Metadata of an object: `root`, and its own `name`, `labels`, and `annotations`, if it has any. */}}
{{- define "metadata" -}}
name: {{ .name | default (include "fullname" .root) }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "labels" . | nindent 2 }}
{{- with include "annotations" . }}
{{ . }}
{{- end }}
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

{{/* Ports of outgoing connections, separated by spaces: those of the values, and those of URLs in the settings. */}}
{{- define "egressPorts" -}}
{{- $ports := list }}
{{- range .Values.networkPolicy.egressPorts }}
{{- $ports = append $ports (toString .) }}
{{- end }}
{{- range $group := .Values.settings }}
{{- range $setting := $group }}
{{- if and (kindIs "string" $setting) (regexMatch "^https?://" $setting) }}
{{- $url := urlParse $setting }}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" }}
{{- $ports = append $ports ($port | default (eq $url.scheme "https" | ternary "443" "80")) }}
{{- end }}
{{- end }}
{{- end }}
{{- uniq $ports | join " " }}
{{- end }}

{{/* Probe of a path. With webConfig, TLS or a password may be required, which the script in the image handles. */}}
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
