package outlier

import (
	"fmt"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Fields are the supported fields of the message that Parse reads.
func Fields() strict.Fields {
	return strict.Fields{
		"envoy.config.cluster.v3.OutlierDetection": {
			"consecutive_5xx", "enforcing_consecutive_5xx",
			"consecutive_gateway_failure", "enforcing_consecutive_gateway_failure",
			"split_external_local_origin_errors",
			"consecutive_local_origin_failure", "enforcing_consecutive_local_origin_failure",
			"success_rate_minimum_hosts", "success_rate_request_volume", "success_rate_stdev_factor",
			"enforcing_success_rate", "enforcing_local_origin_success_rate",
			"failure_percentage_threshold", "failure_percentage_minimum_hosts", "failure_percentage_request_volume",
			"enforcing_failure_percentage", "enforcing_failure_percentage_local_origin",
			"interval", "base_ejection_time", "max_ejection_time", "max_ejection_time_jitter",
			"max_ejection_percent", "always_eject_one_host", "successful_active_health_check_uneject_host",
		},
	}
}

// Config is a checked OutlierDetection.
type Config struct {
	// Consecutive is how many failures in a row are an outlier, of the first
	// three kinds; 0 is never.
	Consecutive [consecutiveKinds]uint32
	// Enforcing is the chance in percent that an outlier of a kind is ejected,
	// and not only counted.
	Enforcing [kinds]uint32
	// Split keeps failures of this proxy's own (connects, timeouts, resets)
	// apart from answers of the host.
	Split bool

	// SuccessRate and FailurePercentage say which hosts are compared in the
	// rounds of each interval.
	SuccessRate, FailurePercentage Round
	// StdevFactor is how many standard deviations below the mean a success rate
	// must be.
	StdevFactor float64
	// FailureThreshold is the percentage of failures that is an outlier.
	FailureThreshold float64

	// Interval is the time between two rounds.
	Interval time.Duration
	// BaseEjectionTime times the number of ejections, and at most
	// MaxEjectionTime, is how long a host stays ejected; a random time up to
	// Jitter is added.
	BaseEjectionTime, MaxEjectionTime, Jitter time.Duration
	// MaxEjectionPercent is the share of the hosts that can be ejected at the
	// same time.
	MaxEjectionPercent uint32
	// AlwaysEjectOne lets one host be ejected whatever MaxEjectionPercent says.
	AlwaysEjectOne bool
	// UnejectOnHealthCheck ends an ejection when an active health check passes.
	UnejectOnHealthCheck bool
}

// Round says when hosts are compared by their results of an interval.
type Round struct {
	// Hosts is how many must have had Volume results.
	Hosts, Volume uint32
}

// Envoy's defaults of the fields that are left out, where they are not 0.
const (
	defaultConsecutive        = 5
	defaultInterval           = 10 * time.Second
	defaultBaseEjectionTime   = 30 * time.Second
	defaultMaxEjectionTime    = 300 * time.Second // or the base, if that is more
	defaultMaxEjectionPercent = 10
	defaultHosts              = 5
	defaultSuccessVolume      = 100
	defaultFailureVolume      = 50
	defaultStdevFactor        = 1900 // in thousandths
	defaultFailureThreshold   = 85
)

// Parse makes a Config of an OutlierDetection that lies at the path at; nil of
// nil. Faults go to report; the result is for use only if there are none. That
// percentages are at most 100 and times above 0 is held by the message's own
// rules.
func Parse(m *clusterv3.OutlierDetection, at strict.Path, report *strict.Report) *Config {
	if m == nil {
		return nil
	}
	duration := func(d *durationpb.Duration, fallback time.Duration, field string) time.Duration {
		return coreconfig.Duration(d, fallback, at.Field(field), report)
	}
	c := &Config{
		Consecutive: [consecutiveKinds]uint32{
			Consecutive5xx:                number(m.GetConsecutive_5Xx(), defaultConsecutive),
			ConsecutiveGatewayFailure:     number(m.GetConsecutiveGatewayFailure(), defaultConsecutive),
			ConsecutiveLocalOriginFailure: number(m.GetConsecutiveLocalOriginFailure(), defaultConsecutive),
		},
		Enforcing: [kinds]uint32{
			Consecutive5xx:                number(m.GetEnforcingConsecutive_5Xx(), 100),
			ConsecutiveGatewayFailure:     number(m.GetEnforcingConsecutiveGatewayFailure(), 0),
			ConsecutiveLocalOriginFailure: number(m.GetEnforcingConsecutiveLocalOriginFailure(), 100),
			SuccessRate:                   number(m.GetEnforcingSuccessRate(), 100),
			LocalOriginSuccessRate:        number(m.GetEnforcingLocalOriginSuccessRate(), 100),
			FailurePercentage:             number(m.GetEnforcingFailurePercentage(), 0),
			LocalOriginFailurePercentage:  number(m.GetEnforcingFailurePercentageLocalOrigin(), 0),
		},
		Split: m.GetSplitExternalLocalOriginErrors(),
		SuccessRate: Round{
			Hosts:  number(m.GetSuccessRateMinimumHosts(), defaultHosts),
			Volume: number(m.GetSuccessRateRequestVolume(), defaultSuccessVolume),
		},
		FailurePercentage: Round{
			Hosts:  number(m.GetFailurePercentageMinimumHosts(), defaultHosts),
			Volume: number(m.GetFailurePercentageRequestVolume(), defaultFailureVolume),
		},
		StdevFactor:          float64(number(m.GetSuccessRateStdevFactor(), defaultStdevFactor)) / 1000,
		FailureThreshold:     float64(number(m.GetFailurePercentageThreshold(), defaultFailureThreshold)),
		Interval:             duration(m.GetInterval(), defaultInterval, "interval"),
		BaseEjectionTime:     duration(m.GetBaseEjectionTime(), defaultBaseEjectionTime, "base_ejection_time"),
		Jitter:               duration(m.GetMaxEjectionTimeJitter(), 0, "max_ejection_time_jitter"),
		MaxEjectionPercent:   number(m.GetMaxEjectionPercent(), defaultMaxEjectionPercent),
		AlwaysEjectOne:       m.GetAlwaysEjectOneHost().GetValue(),
		UnejectOnHealthCheck: m.GetSuccessfulActiveHealthCheckUnejectHost() == nil || m.GetSuccessfulActiveHealthCheckUnejectHost().GetValue(),
	}
	c.MaxEjectionTime = duration(m.GetMaxEjectionTime(), max(defaultMaxEjectionTime, c.BaseEjectionTime), "max_ejection_time")
	if c.MaxEjectionTime < c.BaseEjectionTime {
		report.Add(at.Field("max_ejection_time"), "%v is less than base_ejection_time, which is %v", c.MaxEjectionTime, c.BaseEjectionTime)
	}
	return c
}

func number(v *wrapperspb.UInt32Value, fallback uint32) uint32 {
	if v == nil {
		return fallback
	}
	return v.GetValue()
}

// Warning says, in one sentence, that no host of a cluster of so many hosts can
// be ejected, and why; it is empty where one can. Envoy's default of
// max_ejection_percent ejects none of fewer than 10 hosts.
func (c *Config) Warning(hosts int) string {
	switch {
	case c.AlwaysEjectOne || hosts == 0 || c.allows(0, hosts):
		return ""
	case c.MaxEjectionPercent == 0:
		return "max_ejection_percent 0 ejects no host; set it, or always_eject_one_host"
	}
	least := (100 + c.MaxEjectionPercent - 1) / c.MaxEjectionPercent
	return fmt.Sprintf("max_ejection_percent %d ejects no host of %d: it takes %d hosts, or always_eject_one_host", c.MaxEjectionPercent, hosts, least)
}

// allows says whether one more host can be ejected when so many of so many are.
func (c *Config) allows(ejected, hosts int) bool {
	return c.AlwaysEjectOne && ejected == 0 || 100*(ejected+1) <= int(c.MaxEjectionPercent)*hosts
}
