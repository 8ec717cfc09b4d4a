// The usual exporter in Go: encoding/json, client_golang, gzip. It publishes the same metrics and
// has the same arguments as benchmarks/naive.py.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sort"
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
		StartTimeMs              int64      `json:"startTimeMs"`
		EndTimeMs                int64      `json:"endTimeMs"`
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

type seriesKey struct{ agent, site, protocol string }

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

func newRegistry(folder string) *prometheus.Registry {
	networks, newest := map[string]session{}, map[seriesKey][]session{}
	for _, network := range decode(folder, "networks") {
		networks[network.ID] = network
	}
	registry := prometheus.NewRegistry()
	for _, user := range decode(folder, "users") {
		network := networks[user.ID]
		user.Destination, user.SystemMetrics = network.Destination, network.SystemMetrics
		key := seriesKey{user.AgentID, user.VisitedSite, user.Protocol}
		if known := newest[key]; len(known) == 0 || known[0].RoundID < user.RoundID {
			newest[key] = []session{user}
		} else if known[0].RoundID == user.RoundID {
			newest[key] = append(known, user)
		}
	}
	gauges := map[string]*prometheus.GaugeVec{}
	for key, sessions := range newest {
		aggregate(sessions, func(name string, value float64) {
			if gauges[name] == nil {
				options := prometheus.GaugeOpts{Name: "thousandeyes_endpoint_" + name, Help: "Value of " + name + "."}
				labels := []string{"aid", "agent", "site", "protocol"}
				gauges[name] = promauto.With(registry).NewGaugeVec(options, labels)
			}
			gauges[name].WithLabelValues("1001", key.agent, key.site, key.protocol).Set(value)
		})
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

// aggregate sets the gauges of one series key from the sessions of its newest round.
func aggregate(sessions []session, set func(string, float64)) {
	var latency, jitter, loss, score, pages, memorySize float64
	var cpu, memory []statistics
	seen := map[[2]int64]bool{}
	for _, each := range sessions {
		path, system := each.Destination, each.SystemMetrics
		latency, jitter, loss = latency+path.Latency, jitter+path.Jitter, loss+path.Loss
		score, pages = score+each.ExperienceScore, pages+each.NumberOfPages
		if period := [2]int64{system.StartTimeMs, system.EndTimeMs}; !seen[period] {
			seen[period] = true
			cpu, memory = append(cpu, system.CPUUtilization), append(memory, system.PhysicalMemoryUsedBytes)
			memorySize = math.Max(memorySize, system.PhysicalMemoryTotalBytes)
		}
	}
	count := float64(len(sessions))
	set("latency_seconds", latency/count/1000)
	set("jitter_seconds", jitter/count/1000)
	set("loss_ratio", loss/count/100)
	combine(cpu, "cpu_utilization", "_ratio", "cpu_samples", set)
	combine(memory, "memory_used", "_bytes", "memory_samples", set)
	set("memory_size_bytes", memorySize)
	set("experience_score", score/count)
	set("pages", pages)
	set("sessions", count)
	set("round_timestamp_seconds", float64(sessions[0].RoundID))
}

// combine sets the gauges of one quantity from its statistics in several periods.
func combine(periods []statistics, name, unit, samples string, set func(string, float64)) {
	low, high := math.Inf(1), math.Inf(-1)
	var count, total, squares float64
	var medians []float64
	for _, each := range periods {
		low, high = math.Min(low, each.Min), math.Max(high, each.Max)
		count, total = count+each.Count, total+each.Mean*each.Count
		medians = append(medians, each.Median)
	}
	mean := total / count
	for _, each := range periods {
		squares += each.Count * (each.StdDev*each.StdDev + (each.Mean-mean)*(each.Mean-mean))
	}
	sort.Float64s(medians)
	set(name+unit, mean)
	set(name+"_min"+unit, low)
	set(name+"_max"+unit, high)
	set(name+"_median"+unit, (medians[len(medians)/2]+medians[(len(medians)-1)/2])/2)
	set(name+"_stddev"+unit, math.Sqrt(squares/count))
	set(samples, count)
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
