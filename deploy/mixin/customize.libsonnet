// Applies a configuration to the rules and dashboards of the repository. With the default configuration, they stay as they
// are.
local defaults = (import 'config.libsonnet')._config;

local milliseconds(value) = '%g ms' % (value * 1000);
local percent(value) = '%g%%' % (value * 100);
local dBm(value) = '%g dBm' % value;

// For each threshold: parts of the names of its metrics, how texts name it, and, if dashboards have the same limit, the two
// upper bounds of its colors.
local limits = {
  latencySeconds: { metrics: ['endpoint_latency_seconds'], text: milliseconds, colors: [0.15, 0.3] },
  lossRatio: { metrics: ['loss_ratio'], text: percent, colors: [0.01, 0.05] },
  jitterSeconds: { metrics: ['jitter_seconds'], text: milliseconds, colors: [0.03, 0.05] },
  experienceScore: { metrics: ['score'], colors: [0.5, 0.7] },
  agentLossRatio: { metrics: ['loss_ratio'], text: percent },
  cpuRatio: { metrics: ['cpu_utilization_ratio'], text: percent, colors: [0.8, 0.9] },
  memoryRatio: { metrics: ['memory_used_bytes'], text: percent, colors: [0.85, 0.95] },
  wifiSignalDbm: { metrics: ['wifi_signal_dbm'], text: dBm, colors: [-80, -70] },
  gatewayLatencySeconds: {
    metrics: ['local_network_latency_seconds', 'tcp_connect_seconds'],
    text: milliseconds,
    colors: [0.02, 0.05],
  },
  vpnLatencySeconds: {
    metrics: ['local_network_latency_seconds', 'tcp_connect_seconds', 'vpn_latency', 'proxy_latency'],
    text: milliseconds,
    colors: [0.1, 0.15],
  },
  dnsResolutionSeconds: { metrics: ['dns_resolution_seconds'], text: milliseconds, colors: [0.1, 0.2] },
  locationShare: { metrics: ['local_network_round_timestamp_seconds:count'] },
  vpnShare: { metrics: ['local_network_latency_seconds:count'] },
  staleSeconds: { metrics: ['last_poll_success_timestamp_seconds', 'poll_interval_seconds'], colors: [150, 600] },
  pollDurationRatio: { metrics: ['last_poll_duration_seconds'], text: percent },
  rateLimitRemainingRatio: { metrics: ['api_rate_limit_'], text: percent, colors: [0.1, 0.25] },
  unmatchedRatio: { metrics: ['exporter_sessions'], text: percent, colors: [0.1, 0.2] },
};

local last(text) = std.substr(text, std.length(text) - 1, 1);
local mentions(text, parts) = std.length([part for part in parts if std.strReplace(text, part, '') != text]) > 0;

local lastMetric(query) =
  local parts = std.split(query, 'thousandeyes_');
  parts[std.length(parts) - 1];

// Replaces a number, with its unit if it has one, where it is a word and `isMeant` of the text before it.
local replaceNumber(text, old, new, isMeant) =
  local parts = std.split(text, old);
  local replace(done, part) =
    local isWord = std.member(' \n', last(done)) && (part == '' || !std.member('0123456789', part[0]));
    done + (if isWord && isMeant(done) then new else old) + part;
  if std.length(parts) == 1 then text else std.foldl(replace, parts[1:], parts[0]);

// Replaces old by new limits. They are marked first, because the new value of one can be the old value of another.
local replaceLimits(text, limits, isMeant=function(limit, before) true) =
  local mark(done, limit) = replaceNumber(done, limit.old, limit.mark, function(before) isMeant(limit, before));
  local unmark(done, limit) = std.strReplace(done, limit.mark, limit.new);
  std.foldl(unmark, limits, std.foldl(mark, limits, text));

// Inserts matchers into the selectors of all metrics whose name starts with `prefix`. Series of recording rules, which have
// colons in their name, do not have the labels of the target. A name may end with a variable of a dashboard.
local nameCharacters = ':_0123456789abcdefghijklmnopqrstuvwxyz';
local insertMatchers(query, prefix, matchers) =
  local parts = std.split(query, prefix);
  local insert(done, part) =
    local end = std.lstripChars(part, nameCharacters);
    local rest = if std.startsWith(end, '${') then std.join('}', std.split(end, '}')[1:]) else end;
    local name = prefix + std.substr(part, 0, std.length(part) - std.length(rest));
    done + name + (
      if (done != '' && std.member(nameCharacters, last(done))) || std.member(name, ':') then rest
      else if rest != '' && rest[0] == '{' then '{' + matchers + ', ' + rest[1:]
      else '{' + matchers + '}' + rest
    );
  std.foldl(insert, parts[1:], parts[0]);

function(config) {
  local changed = [
    local old = defaults.thresholds[name], new = config.thresholds[name];
    limits[name] {
      values: { old: old, new: new },
      number: { old: '%g' % old, new: '%g' % new, mark: '§%s§' % name, metrics: limits[name].metrics },
      words: if 'text' in limits[name]
      then [{ old: limits[name].text(old), new: limits[name].text(new), mark: '§%s§' % name }]
      else [],
    }
    for name in std.objectFields(limits)
    if config.thresholds[name] != defaults.thresholds[name]
  ],
  local numbers = [limit.number for limit in changed],

  local expression(query) =
    // A number is the limit of the metric that is named last before it.
    local isMeant(limit, before) = mentions(lastMetric(before), limit.metrics);
    local limited = replaceLimits(query, numbers, isMeant);
    // Marked first as well, because the matchers may look like metrics.
    local inserted = std.foldl(
      function(text, prefix) insertMatchers(text, prefix, '§'),
      ['thousandeyes_', 'process_', 'scrape_duration_seconds', 'up'],
      limited
    );
    local selected = if config.selector == '' then limited else std.strReplace(inserted, '§', config.selector);
    std.strReplace(selected, 'job="%s"' % defaults.job, 'job="%s"' % config.job),

  // Queries in annotations are strings of a template and formats of printf.
  local annotation(text) =
    local escaped = std.strReplace(std.strReplace(std.strReplace(config.selector, '\\', '\\\\'), '"', '\\"'), '%', '%%');
    if config.selector == '' then text else insertMatchers(text, 'thousandeyes_', escaped),

  local prose(text, ofLimits) = replaceLimits(text, std.flattenArrays([limit.words for limit in ofLimits])),

  local ofUID(text) = std.strReplace(text, '/d/' + defaults.dashboardUIDPrefix, '/d/' + config.dashboardUIDPrefix),

  local rule(original) =
    local about = [limit for limit in changed if mentions(original.expr, limit.metrics)];
    original { expr: expression(super.expr) } +
    if 'alert' in original then {
      labels+: { severity: config.severities[super.severity] },
      annotations+: {
        summary: annotation(super.summary),
        description: annotation(prose(super.description, about)),
        runbook_url: config.runbookURLPattern % original.alert,
        dashboard_url: config.grafanaURL + ofUID(super.dashboard_url),
      },
    } else {},

  // Rules of one kind, `record` or `alert`, by group.
  groups(groups, kind, suffix=''):: [
    { name: group.name + suffix, rules: [rule(each) for each in group.rules if kind in each] }
    + (if config.interval == null then {} else { interval: config.interval })
    for group in groups
    if std.length([each for each in group.rules if kind in each]) > 0
  ],

  // The bound that is the limit moves, and the other one with it if it would be on the wrong side.
  local steps(original, ofLimits) =
    local values = [step.value for step in original];
    local bounds = values[std.max(std.length(values) - 2, 0):];
    std.foldl(
      function(done, limit)
        if bounds != limit.colors then done
        else [
          step {
            value: if step.value == limit.values.old then limit.values.new
            else if !std.member(bounds, step.value) then step.value
            else if limit.values.old == bounds[0] then std.max(step.value, limit.values.new)
            else std.min(step.value, limit.values.new),
          }
          for step in done
        ],
      ofLimits,
      original
    ),

  local edit(value, ofLimits, key='') =
    if std.isObject(value) then { [name]: edit(value[name], ofLimits, name) for name in std.objectFields(value) }
    else if key == 'steps' && std.isArray(value) then steps(value, ofLimits)
    else if std.isArray(value) then [edit(each, ofLimits) for each in value]
    else if !std.isString(value) then value
    else if key == 'expr' || key == 'query' then prose(expression(value), ofLimits)
    else ofUID(prose(value, ofLimits)),

  local panel(original) =
    local queries = if 'targets' in original then std.join('\n', [target.expr for target in original.targets]) else '';
    edit(original, [limit for limit in changed if 'colors' in limit && mentions(queries, limit.metrics)]),

  dashboard(original):: edit(original { panels: [] }, []) {
    panels: [panel(each) for each in original.panels],
    title: std.strReplace(super.title, defaults.dashboardNamePrefix, config.dashboardNamePrefix),
    uid: std.strReplace(super.uid, defaults.dashboardUIDPrefix, config.dashboardUIDPrefix),
    tags: config.dashboardTags,
    links: [link { tags: config.dashboardTags } for link in super.links],
    refresh: config.dashboardRefresh,
  },
}
