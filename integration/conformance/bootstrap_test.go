package conformance

import (
	"fmt"
	"net"
	"strings"
)

// bootstrap is a proxy's bootstrap, with an admin listener at a free port. Its parts are
// lines of YAML that begin at the margin.
type bootstrap struct {
	node      string // fields of the node, of which tests need not know
	more      string // further fields
	listeners []listener
	clusters  []string // each by cluster or clusterOf
}

// String is the file.
func (b bootstrap) String() string {
	if b.node == "" {
		b.node = "id: mill\ncluster: tests"
	}
	var listeners []string
	for _, l := range b.listeners {
		listeners = append(listeners, l.String())
	}
	return "node:\n" + indented(b.node) +
		"admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}\n" +
		lines(b.more) +
		"static_resources:\n" +
		indented("listeners:"+list(listeners)) +
		indented("clusters:"+list(b.clusters))
}

// listener is one at a free port, with one chain of an http_connection_manager.
type listener struct {
	name    string // and its stat_prefix; ingress, if empty
	chain   string // fields of the chain, but for its filters
	manager string // fields of the http_connection_manager
	filters string // the HTTP filters before the router, each by filter
	router  string // fields of the router
}

// String is the fields of the listener.
func (l listener) String() string {
	if l.name == "" {
		l.name = "ingress"
	}
	router := list([]string{"name: router\ntyped_config:\n" +
		indented(`"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router`+"\n"+l.router)})
	manager := `"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager` + "\n" +
		"stat_prefix: " + l.name + "\n" + lines(l.manager) + "http_filters:\n" + lines(l.filters) + router
	chain := lines(l.chain) + "filters:" + list([]string{"name: http\ntyped_config:\n" + indented(manager)})
	return "name: " + l.name + "\naddress: {socket_address: {address: 127.0.0.1, port_value: 0}}\nfilter_chains:" + list([]string{chain})
}

// cluster is the fields of a cluster of one endpoint, and further ones.
func cluster(name, address string, more ...string) string {
	return clusterOf(name, "{lb_endpoints: ["+endpoint(address)+"]}", more...)
}

// clusterOf is cluster for any endpoints, in YAML's flow style as all below.
func clusterOf(name, endpoints string, more ...string) string {
	return fmt.Sprintf("name: %[1]s\ntype: STATIC\nconnect_timeout: 60s\nload_assignment: {cluster_name: %[1]s, endpoints: [%[2]s]}\n",
		name, endpoints) + strings.Join(more, "\n")
}

// endpoint is an LbEndpoint at an address, "ip:port", with further fields.
func endpoint(address string, more ...string) string {
	ip, port, err := net.SplitHostPort(address)
	if err != nil {
		panic(err) // which a test wrote
	}
	fields := append([]string{fmt.Sprintf("endpoint: {address: {socket_address: {address: %s, port_value: %s}}}", ip, port)}, more...)
	return "{" + strings.Join(fields, ", ") + "}"
}

// overHTTP2 has a cluster's endpoints spoken to in HTTP/2.
var overHTTP2 = upstreamProtocol("http2_protocol_options")

// upstreamProtocol has them spoken to in the version of HTTP that has these options.
func upstreamProtocol(options string) string {
	return `typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {` +
		`"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {` + options + `: {}}}}`
}

// filter is an item of HTTP filters: one of a type below envoy.extensions.filters.http,
// with its fields.
func filter(name, kind string, fields ...string) string {
	return fmt.Sprintf("- {name: %s, typed_config: %s}\n", name, typed("envoy.extensions.filters.http."+kind, fields...))
}

// typed is a message of a type, with its fields.
func typed(kind string, fields ...string) string {
	return "{" + strings.Join(append([]string{`"@type": type.googleapis.com/` + kind}, fields...), ", ") + "}"
}

// lines is YAML with an end of line behind it, unless it is empty.
func lines(yaml string) string {
	yaml = strings.Trim(yaml, "\n")
	if yaml == "" {
		return ""
	}
	return yaml + "\n"
}

// indented is lines that are the value of a field.
func indented(yaml string) string {
	return lines("  " + strings.ReplaceAll(strings.Trim(yaml, "\n"), "\n", "\n  "))
}

// list is the value of a field whose line is begun: items, each of fields.
func list(items []string) string {
	if len(items) == 0 {
		return " []\n"
	}
	text := "\n"
	for _, item := range items {
		text += "-" + indented(item)[1:]
	}
	return text
}
