"""HTTP endpoints: metrics, health checks and the status page."""
