// The usual exporter in Go, with the same metrics and arguments as benchmarks/naive.py.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// session is a record of either listing, or both joined.
type session struct {
	ID              string  `json:"id"`
	AgentID         string  `json:"agentId"`
	RoundID         int64   `json:"roundId"`
	VisitedSite     string  `json:"visitedSite"`
	Protocol        string  `json:"protocol"`
	ExperienceScore float64 `json:"experienceScore"`
	NumberOfPages   float64 `json:"numberOfPages"`
	Destination     struct {
		Latency float64 `json:"latency"`
		Jitter  float64 `json:"jitter"`
		Loss    float64 `json:"loss"`
	} `json:"destination"`
	SystemMetrics struct {
		CPUUtilization           statistics `json:"cpuUtilization"`
		PhysicalMemoryUsedBytes  statistics `json:"physicalMemoryUsedBytes"`
		PhysicalMemoryTotalBytes float64    `json:"physicalMemoryTotalBytes"`
	} `json:"systemMetrics"`
}

type statistics struct {
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	Mean   float64 `json:"mean"`
	Median float64 `json:"median"`
	StdDev float64 `json:"stdDev"`
	Count  float64 `json:"count"`
}

func main() {
	command, folder, argument := os.Args[1], os.Args[2], os.Args[3]
	handler := promhttp.HandlerFor(newRegistry(folder), promhttp.HandlerOpts{})
	if command == "serve" {
		http.Handle("/metrics", handler)
		must(http.ListenAndServe("127.0.0.1:"+argument, nil))
	}
	request, recorder := httptest.NewRequest("GET", "/metrics", nil), httptest.NewRecorder()
	request.Header.Set("Accept-Encoding", "gzip")
	handler.ServeHTTP(recorder, request)
	var usage syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	fmt.Println(float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9)
	must(os.WriteFile(argument, recorder.Body.Bytes(), 0o644))
}

// newRegistry has the metrics of a poll; the newest session of each series counts.
func newRegistry(folder string) *prometheus.Registry {
	networks, newest := map[string]session{}, map[[3]string]session{}
	for _, network := range decode(folder, "networks") {
		networks[network.ID] = network
	}
	for _, user := range decode(folder, "users") { // by date
		network := networks[user.ID]
		user.Destination, user.SystemMetrics = network.Destination, network.SystemMetrics
		newest[[3]string{user.AgentID, user.VisitedSite, user.Protocol}] = user
	}
	registry, gauges := prometheus.NewRegistry(), map[string]*prometheus.GaugeVec{}
	for key, session := range newest {
		for name, value := range values(session) {
			if gauges[name] == nil {
				options := prometheus.GaugeOpts{Name: "thousandeyes_endpoint_" + name, Help: "Value of " + name + "."}
				gauges[name] = promauto.With(registry).NewGaugeVec(options, []string{"aid", "agent", "site", "protocol"})
			}
			gauges[name].WithLabelValues("1001", key[0], key[1], key[2]).Set(value)
		}
	}
	return registry
}

func decode(folder, listing string) (sessions []session) {
	names, err := filepath.Glob(filepath.Join(folder, listing+"-*.json"))
	must(err)
	for _, name := range names {
		body, err := os.ReadFile(name)
		must(err)
		var page struct {
			Results []session `json:"results"`
		}
		must(json.Unmarshal(body, &page))
		sessions = append(sessions, page.Results...)
	}
	return sessions
}

func values(s session) map[string]float64 {
	cpu, memory := s.SystemMetrics.CPUUtilization, s.SystemMetrics.PhysicalMemoryUsedBytes
	return map[string]float64{
		"latency_seconds":              s.Destination.Latency / 1000,
		"jitter_seconds":               s.Destination.Jitter / 1000,
		"loss_ratio":                   s.Destination.Loss / 100,
		"cpu_utilization_ratio":        cpu.Mean,
		"cpu_utilization_min_ratio":    cpu.Min,
		"cpu_utilization_max_ratio":    cpu.Max,
		"cpu_utilization_median_ratio": cpu.Median,
		"cpu_utilization_stddev_ratio": cpu.StdDev,
		"cpu_samples":                  cpu.Count,
		"memory_used_bytes":            memory.Mean,
		"memory_used_min_bytes":        memory.Min,
		"memory_used_max_bytes":        memory.Max,
		"memory_used_median_bytes":     memory.Median,
		"memory_used_stddev_bytes":     memory.StdDev,
		"memory_samples":               memory.Count,
		"memory_size_bytes":            s.SystemMetrics.PhysicalMemoryTotalBytes,
		"experience_score":             s.ExperienceScore,
		"pages":                        s.NumberOfPages,
		"sessions":                     1,
		"round_timestamp_seconds":      float64(s.RoundID),
	}
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
