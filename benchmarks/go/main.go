// The usual way in Go: encoding/json, maps of slices, a GaugeVec a family, client_golang's gathering, gzip.
//
// It publishes the same samples as the exporter, computed in the same way, from files of pages.
//
//	reference poll FOLDER OUTPUT   pages to a compressed exposition; prints what that cost, as JSON
//	reference serve FOLDER         the same samples behind promhttp; prints the port it listens on
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"log"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sort"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"
)

const (
	aid      = "1001"
	end      = 1763728200
	lookback = 900
	prefix   = "thousandeyes_endpoint_"
)

type page struct {
	Results []session `json:"results"`
}

type session struct {
	ID              string         `json:"id"`
	AgentID         string         `json:"agentId"`
	RoundID         int64          `json:"roundId"`
	VisitedSite     string         `json:"visitedSite"`
	Protocol        string         `json:"protocol"`
	ExperienceScore *float64       `json:"experienceScore"`
	NumberOfPages   *float64       `json:"numberOfPages"`
	Destination     *leg           `json:"destination"`
	SystemMetrics   *systemMetrics `json:"systemMetrics"`
}

type leg struct {
	Latency *float64 `json:"latency"`
	Jitter  *float64 `json:"jitter"`
	Loss    *float64 `json:"loss"`
}

type statistics struct {
	Min    *float64 `json:"min"`
	Max    *float64 `json:"max"`
	Mean   *float64 `json:"mean"`
	Median *float64 `json:"median"`
	StdDev *float64 `json:"stdDev"`
	Count  *float64 `json:"count"`
}

type systemMetrics struct {
	StartTimeMs              int64       `json:"startTimeMs"`
	EndTimeMs                int64       `json:"endTimeMs"`
	CPUUtilization           *statistics `json:"cpuUtilization"`
	PhysicalMemoryUsedBytes  *statistics `json:"physicalMemoryUsedBytes"`
	PhysicalMemoryTotalBytes *float64    `json:"physicalMemoryTotalBytes"`
}

type key struct{ agent, site, protocol string }

type newest struct {
	round    int64
	sessions []session
}

type gauges map[string]*prometheus.GaugeVec

func main() {
	if len(os.Args) < 3 {
		log.Fatal("usage: reference poll FOLDER OUTPUT | reference serve FOLDER")
	}
	users, networks := read(os.Args[2], "users"), read(os.Args[2], "networks")
	switch os.Args[1] {
	case "poll":
		before, began := cpu(), time.Now()
		exposition := gather(registry(users, networks))
		wall, after := time.Since(began).Seconds(), cpu()
		must(os.WriteFile(os.Args[3], exposition, 0o644))
		fmt.Printf(`{"cpu": %f, "wall": %f}`+"\n", after-before, wall)
	case "serve":
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		must(err)
		handler := promhttp.HandlerFor(registry(users, networks), promhttp.HandlerOpts{EnableOpenMetrics: true})
		http.Handle("/metrics", handler)
		fmt.Println(listener.Addr().(*net.TCPAddr).Port)
		must(http.Serve(listener, nil))
	}
}

func read(folder, kind string) [][]byte {
	names, err := filepath.Glob(filepath.Join(folder, kind+"-*.json"))
	must(err)
	sort.Strings(names)
	pages := make([][]byte, len(names))
	for i, name := range names {
		pages[i], err = os.ReadFile(name)
		must(err)
	}
	return pages
}

func decode(pages [][]byte) []session {
	var sessions []session
	for _, body := range pages {
		var decoded page
		must(json.Unmarshal(body, &decoded))
		sessions = append(sessions, decoded.Results...)
	}
	return sessions
}

func registry(userPages, networkPages [][]byte) *prometheus.Registry {
	users := decode(userPages)
	networks := map[string]session{}
	for _, network := range decode(networkPages) {
		networks[network.ID] = network
	}
	found := map[key]*newest{}
	for _, user := range users {
		if user.RoundID < end-lookback || user.RoundID > end {
			continue
		}
		if network, ok := networks[user.ID]; ok {
			user.Destination, user.SystemMetrics = network.Destination, network.SystemMetrics
		}
		name := key{user.AgentID, user.VisitedSite, user.Protocol}
		known := found[name]
		if known == nil || user.RoundID > known.round {
			known = &newest{round: user.RoundID}
			found[name] = known
		}
		if user.RoundID == known.round {
			known.sessions = append(known.sessions, user)
		}
	}
	registry, vectors := prometheus.NewRegistry(), gauges{}
	for name, each := range found {
		aggregate(each, func(family string, value float64) {
			vector := vectors[family]
			if vector == nil {
				vector = prometheus.NewGaugeVec(
					prometheus.GaugeOpts{Name: prefix + family, Help: "What the API says of " + family + "."},
					[]string{"aid", "agent", "site", "protocol"},
				)
				registry.MustRegister(vector)
				vectors[family] = vector
			}
			vector.WithLabelValues(aid, name.agent, name.site, name.protocol).Set(value)
		})
	}
	return registry
}

func aggregate(found *newest, set func(string, float64)) {
	var latencies, jitters, losses, scores, pages, sizes []float64
	var cpus, memories []*statistics
	seen := map[[2]int64]bool{}
	for _, each := range found.sessions {
		scores, pages = add(scores, each.ExperienceScore), add(pages, each.NumberOfPages)
		if leg := each.Destination; leg != nil {
			latencies, jitters, losses = add(latencies, leg.Latency), add(jitters, leg.Jitter), add(losses, leg.Loss)
		}
		system := each.SystemMetrics
		if system == nil || seen[[2]int64{system.StartTimeMs, system.EndTimeMs}] {
			continue
		}
		seen[[2]int64{system.StartTimeMs, system.EndTimeMs}] = true
		sizes = add(sizes, system.PhysicalMemoryTotalBytes)
		if system.CPUUtilization != nil {
			cpus = append(cpus, system.CPUUtilization)
		}
		if system.PhysicalMemoryUsedBytes != nil {
			memories = append(memories, system.PhysicalMemoryUsedBytes)
		}
	}
	mean := func(family string, values []float64, divisor float64) {
		if len(values) > 0 {
			set(family, sum(values)/float64(len(values))/divisor)
		}
	}
	mean("latency_seconds", latencies, 1000)
	mean("jitter_seconds", jitters, 1000)
	mean("loss_ratio", losses, 100)
	mean("experience_score", scores, 1)
	system(set, "cpu_utilization", "_ratio", "cpu_samples", cpus)
	system(set, "memory_used", "_bytes", "memory_samples", memories)
	if len(sizes) > 0 {
		sort.Float64s(sizes)
		set("memory_size_bytes", sizes[len(sizes)-1])
	}
	if len(pages) > 0 {
		set("pages", sum(pages))
	}
	set("sessions", float64(len(found.sessions)))
	set("round_timestamp_seconds", float64(found.round))
}

func system(set func(string, float64), name, unit, samples string, periods []*statistics) {
	var lows, highs, medians, counts []float64
	var weight, total, pooledWeight, pooledTotal float64
	for _, each := range periods {
		lows, highs = add(lows, each.Min), add(highs, each.Max)
		medians, counts = add(medians, each.Median), add(counts, each.Count)
		if each.Mean != nil {
			weight, total = weight+count(each), total+*each.Mean*count(each)
			if each.StdDev != nil {
				pooledWeight, pooledTotal = pooledWeight+count(each), pooledTotal+*each.Mean*count(each)
			}
		}
	}
	if weight > 0 {
		set(name+unit, total/weight)
	}
	if len(lows) > 0 {
		sort.Float64s(lows)
		set(name+"_min"+unit, lows[0])
	}
	if len(highs) > 0 {
		sort.Float64s(highs)
		set(name+"_max"+unit, highs[len(highs)-1])
	}
	if middle := len(medians) / 2; len(medians) > 0 {
		sort.Float64s(medians)
		median := medians[middle]
		if len(medians)%2 == 0 {
			median = (medians[middle-1] + medians[middle]) / 2
		}
		set(name+"_median"+unit, median)
	}
	if pooledWeight > 0 {
		var spread float64
		for _, each := range periods {
			if each.Mean != nil && each.StdDev != nil {
				offset := *each.Mean - pooledTotal/pooledWeight
				spread += count(each) * (*each.StdDev**each.StdDev + offset*offset)
			}
		}
		set(name+"_stddev"+unit, math.Sqrt(spread/pooledWeight))
	}
	if len(counts) > 0 {
		set(samples, sum(counts))
	}
}

func gather(registry *prometheus.Registry) []byte {
	families, err := registry.Gather()
	must(err)
	var exposition bytes.Buffer
	compressor := gzip.NewWriter(&exposition)
	encoder := expfmt.NewEncoder(compressor, expfmt.FmtText)
	for _, family := range families {
		must(encoder.Encode(family))
	}
	must(compressor.Close())
	return exposition.Bytes()
}

func add(values []float64, value *float64) []float64 {
	if value == nil {
		return values
	}
	return append(values, *value)
}

func sum(values []float64) (total float64) {
	for _, value := range values {
		total += value
	}
	return total
}

func count(each *statistics) float64 {
	if each.Count == nil {
		return 1
	}
	return *each.Count
}

// cpu returns the seconds that all threads of this process have computed.
func cpu() float64 {
	var usage syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
