// Package stats keeps the proxy's counters, gauges, texts and histograms under Envoy's
// names, in a tree of scopes that mirrors the dotted names. Packages on the data path
// take their handles from a scope when configuration is compiled and then pay
// an atomic add or two per event; the admin listener and Prometheus read the tree.
// It never parses a name to find tags: a tag is said where the name is made.
package stats
