package grpcserver

import "github.com/prometheus/client_golang/prometheus"

// certificateStats counts the loads of certificates.
type certificateStats struct {
	loadSuccess, loadError prometheus.Counter
	files                  prometheus.Gauge
}

func newCertificateStats(reg prometheus.Registerer) *certificateStats {
	s := &certificateStats{
		loadSuccess: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ratelimit_certificates_load_success",
			Help: "Loads of the certificate files that are shown since.",
		}),
		loadError: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ratelimit_certificates_load_error",
			Help: "Loads of certificate files in which one could not be read or was refused.",
		}),
		files: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ratelimit_certificates_files",
			Help: "Files of the certificates that are shown and asked for.",
		}),
	}
	reg.MustRegister(s.loadSuccess, s.loadError, s.files)
	return s
}

// loaded counts a load of so many files, the error being what is wrong.
func (s *certificateStats) loaded(files int, err error) {
	if err != nil {
		s.loadError.Inc()
		return
	}
	s.loadSuccess.Inc()
	s.files.Set(float64(files))
}
