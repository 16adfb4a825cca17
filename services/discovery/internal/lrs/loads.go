package lrs

import (
	"cmp"
	"context"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
)

// Rates are requests a second, but for InProgress, which is requests.
type Rates struct {
	Issued     float64 `json:"issued"`
	Successful float64 `json:"successful"`
	Failed     float64 `json:"failed"`
	InProgress float64 `json:"in_progress"`
}

func (r *Rates) add(other Rates) {
	r.Issued += other.Issued
	r.Successful += other.Successful
	r.Failed += other.Failed
	r.InProgress += other.InProgress
}

// place is where hosts are. Its address is "host:port", or empty for a locality
// as a whole.
type place struct{ region, zone, subZone, address string }

// cluster is what one client reported of one cluster.
type cluster struct {
	dropped map[string]float64 // by category
	places  map[place]Rates
}

// report is the last one of a client, which has one stream. Fields but the first
// ones are guarded by Server.mu.
type report struct {
	ctx   context.Context // of the stream
	ended chan error      // has a value when the stream is to end

	// node is id and cluster of the client, which do not change; nil before its first
	// request.
	node     *corev3.Node
	at       time.Time
	clusters map[string]*cluster
	rows     int // that clusters has
}

func newReport(ctx context.Context) *report { return &report{ctx: ctx, ended: make(chan error, 1)} }

// end makes the stream end with an error. Only the first end counts.
func (r *report) end(err error) {
	select {
	case r.ended <- err:
	default:
	}
}

// read turns counts into rates, and says how many rows that makes. A cluster
// that EDS calls otherwise is named as EDS does: several may be one service.
func read(stats []*endpointv3.ClusterStats, usual time.Duration) (clusters map[string]*cluster, rows int) {
	clusters = make(map[string]*cluster, len(stats))
	for _, s := range stats {
		name := cmp.Or(s.GetClusterServiceName(), s.GetClusterName())
		c := clusters[name]
		if c == nil {
			c = &cluster{dropped: map[string]float64{}, places: map[place]Rates{}}
			clusters[name] = c
		}
		seconds := s.GetLoadReportInterval().AsDuration().Seconds()
		if seconds <= 0 {
			seconds = usual.Seconds()
		}
		for _, d := range s.GetDroppedRequests() {
			c.dropped[d.GetCategory()] += float64(d.GetDroppedCount()) / seconds
		}
		for _, l := range s.GetUpstreamLocalityStats() {
			at := place{l.GetLocality().GetRegion(), l.GetLocality().GetZone(), l.GetLocality().GetSubZone(), ""}
			c.count(at, seconds, l)
			for _, e := range l.GetUpstreamEndpointStats() {
				if at.address = addressText(e.GetAddress()); at.address != "" {
					c.count(at, seconds, e)
				}
			}
		}
	}
	for name, c := range clusters {
		rows += rowsOf(name)
		for category := range c.dropped {
			rows += rowsOf(category)
		}
		for at := range c.places {
			rows += rowsOf(at.region, at.zone, at.subZone, at.address)
		}
	}
	return clusters, rows
}

// rowsOf is for how many rows one counts that bears these names.
func rowsOf(names ...string) int {
	bytes := 0
	for _, name := range names {
		bytes += len(name)
	}
	return max(1, (bytes+255)/256)
}

// counts is what localities and endpoints have in common.
type counts interface {
	GetTotalIssuedRequests() uint64
	GetTotalSuccessfulRequests() uint64
	GetTotalErrorRequests() uint64
	GetTotalRequestsInProgress() uint64
}

// count adds what was counted at a place within so many seconds.
func (c *cluster) count(at place, seconds float64, n counts) {
	rates := c.places[at]
	rates.add(Rates{
		Issued:     float64(n.GetTotalIssuedRequests()) / seconds,
		Successful: float64(n.GetTotalSuccessfulRequests()) / seconds,
		Failed:     float64(n.GetTotalErrorRequests()) / seconds,
		InProgress: float64(n.GetTotalRequestsInProgress()),
	})
	c.places[at] = rates
}

// addressText is where a host is, "host:port" or the path of a socket; empty
// where that is not said.
func addressText(a *corev3.Address) string {
	socket := a.GetSocketAddress()
	if socket == nil {
		return a.GetPipe().GetPath()
	}
	return net.JoinHostPort(socket.GetAddress(), strconv.FormatUint(uint64(socket.GetPortValue()), 10))
}

// ClusterLoad is the load of one cluster as all clients together report it.
type ClusterLoad struct {
	Cluster string `json:"cluster"`
	Clients int    `json:"clients"`
	Rates
	// Dropped is requests a second that clients dropped on purpose, by category.
	Dropped    map[string]float64 `json:"dropped,omitempty"`
	Localities []LocalityLoad     `json:"localities"`
}

// LocalityLoad is the load of one locality, and of its hosts if clients report
// them.
type LocalityLoad struct {
	Region  string `json:"region"`
	Zone    string `json:"zone"`
	SubZone string `json:"sub_zone,omitempty"`
	Rates
	Endpoints []EndpointLoad `json:"endpoints,omitempty"`
}

// EndpointLoad is the load of one host.
type EndpointLoad struct {
	Address string `json:"address"`
	Rates
}

// Loads sums up what all clients last reported, by cluster, in order of names.
func (s *Server) Loads() []ClusterLoad {
	s.mu.Lock()
	sums, clients := s.sum()
	s.mu.Unlock()
	loads := make([]ClusterLoad, 0, len(sums))
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		loads = append(loads, sums[name].load(name, clients[name]))
	}
	return loads
}

// sum adds the reports that still count, by cluster, and counts the clients of
// each. s.mu must be held.
func (s *Server) sum() (sums map[string]*cluster, clients map[string]int) {
	sums, clients = map[string]*cluster{}, map[string]int{}
	for r := range s.reports {
		if time.Since(r.at) > silentIntervals*s.options.Interval {
			continue
		}
		for name, c := range r.clusters {
			clients[name]++
			sum := sums[name]
			if sum == nil {
				sum = &cluster{dropped: map[string]float64{}, places: map[place]Rates{}}
				sums[name] = sum
			}
			for category, rate := range c.dropped {
				sum.dropped[category] += rate
			}
			for at, rates := range c.places {
				total := sum.places[at]
				total.add(rates)
				sum.places[at] = total
			}
		}
	}
	return sums, clients
}

// load is a sum as it is shown.
func (c *cluster) load(name string, clients int) ClusterLoad {
	l := ClusterLoad{Cluster: name, Clients: clients, Dropped: c.dropped}
	order := func(a, b place) int {
		return cmp.Or(cmp.Compare(a.region, b.region), cmp.Compare(a.zone, b.zone),
			cmp.Compare(a.subZone, b.subZone), cmp.Compare(a.address, b.address))
	}
	for _, at := range slices.SortedFunc(maps.Keys(c.places), order) {
		rates := c.places[at]
		if at.address != "" { // its locality came just before
			in := &l.Localities[len(l.Localities)-1]
			in.Endpoints = append(in.Endpoints, EndpointLoad{at.address, rates})
			continue
		}
		l.add(rates)
		l.Localities = append(l.Localities, LocalityLoad{Region: at.region, Zone: at.zone, SubZone: at.subZone, Rates: rates})
	}
	return l
}
