package outlier

// Monitor is that of a host, nil if the cluster has no such host.
func (d *Detector[K]) Monitor(host K) *Monitor[K] {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.monitors[host]
}
