{
  _config+:: {
    // Matchers that select the series of the exporter, inserted into every selector of its metrics and of its target:
    // 'cluster="eu"', or 'job="%s"' % self.job if other jobs have metrics of the same name.
    selector: '',

    // The scrape job, for the alert on an exporter that is down.
    job: 'thousandeyes',

    // Limits of alerts. The red (or, where low values are bad, yellow) bound of colors, counts of agents over a limit, and
    // texts that name a limit follow.
    thresholds: {
      // Sessions, by site. Loss and latency count as high for single agents from the same limit; loss also for gateways.
      latencySeconds: 0.3,
      lossRatio: 0.05,
      jitterSeconds: 0.05,
      experienceScore: 0.5,

      // Agents.
      agentLossRatio: 0.1,
      cpuRatio: 0.9,
      memoryRatio: 0.95,
      wifiSignalDbm: -80,

      // Local networks, and the share of the agents that must be over a limit.
      gatewayLatencySeconds: 0.05,
      vpnLatencySeconds: 0.15,
      dnsResolutionSeconds: 0.2,
      locationShare: 0.25,
      vpnShare: 0.5,

      // The exporter and its access to the API.
      staleSeconds: 600,
      pollDurationRatio: 0.8,
      rateLimitRemainingRatio: 0.1,
      unmatchedRatio: 0.2,
    },

    // Values of the label `severity`.
    severities: { critical: 'critical', warning: 'warning', info: 'info' },

    // Evaluation interval of the rule groups; null is that of Prometheus.
    interval: null,

    // %s is the name of the alert.
    runbookURLPattern: 'https://github.com/thousandeyes-exporter/thousandeyes-exporter/blob/main/docs/runbooks/%s.md',

    // Address of Grafana, for the links from alerts to dashboards; empty for links without a host.
    grafanaURL: '',

    dashboardNamePrefix: 'ThousandEyes / ',
    dashboardUIDPrefix: 'thousandeyes-',
    dashboardTags: ['thousandeyes'],
    dashboardRefresh: '1m',
  },
}
