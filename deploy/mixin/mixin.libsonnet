// The dashboards, recording rules and alerts of thousandeyes-exporter, with a configuration. Nothing is written here: the
// sources are grafana/dashboards and deploy/prometheus/thousandeyes.rules.yml.
local customize = import 'customize.libsonnet';

local groups = std.parseYaml(importstr '../prometheus/thousandeyes.rules.yml').groups;
local dashboards = {
  'thousandeyes-agent.json': import '../../grafana/dashboards/thousandeyes-agent.json',
  'thousandeyes-exporter.json': import '../../grafana/dashboards/thousandeyes-exporter.json',
  'thousandeyes-fleet.json': import '../../grafana/dashboards/thousandeyes-fleet.json',
  'thousandeyes-inventory.json': import '../../grafana/dashboards/thousandeyes-inventory.json',
  'thousandeyes-networks.json': import '../../grafana/dashboards/thousandeyes-networks.json',
  'thousandeyes-site.json': import '../../grafana/dashboards/thousandeyes-site.json',
};

(import 'config.libsonnet') {
  local configured = customize($._config),

  prometheusRules+:: { groups+: configured.groups(groups, 'record', '.rules') },
  prometheusAlerts+:: { groups+: configured.groups(groups, 'alert') },
  grafanaDashboards+:: std.mapWithKey(function(_, dashboard) configured.dashboard(dashboard), dashboards),
}
