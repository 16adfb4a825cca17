package resources

// Type is a type of resource. On a stream of all types they go out in the order
// of the types, so that a client knows a cluster before its assignment, both
// before a route to it, and a secret or extension after whoever names it.
type Type int

// The types.
const (
	Clusters   Type = iota // CDS
	Endpoints              // EDS: the assignments of clusters
	Listeners              // LDS
	Routes                 // RDS
	Secrets                // SDS
	Runtimes               // RTDS: layers of the runtime
	Extensions             // ECDS
	// Types is how many there are.
	Types
)

var urls = [Types]string{
	Clusters:   "type.googleapis.com/envoy.config.cluster.v3.Cluster",
	Endpoints:  "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
	Listeners:  "type.googleapis.com/envoy.config.listener.v3.Listener",
	Routes:     "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
	Secrets:    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
	Runtimes:   "type.googleapis.com/envoy.service.runtime.v3.Runtime",
	Extensions: "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
}

var names = [Types]string{
	Clusters:   "clusters",
	Endpoints:  "endpoints",
	Listeners:  "listeners",
	Routes:     "routes",
	Secrets:    "secrets",
	Runtimes:   "runtime",
	Extensions: "extension_configs",
}

// OfURL returns the type of a type URL, and whether it is one of those above.
func OfURL[Text string | []byte](url Text) (Type, bool) {
	for t := range Types {
		if urls[t] == string(url) {
			return t, true
		}
	}
	return 0, false
}

// URL is the type's URL, as Any has it.
func (t Type) URL() string { return urls[t] }

// String is the type's name in the paths of REST-JSON, in logs and in metrics.
func (t Type) String() string { return names[t] }

// Whole says that in the state-of-the-world variant a response of this type
// always holds all that the client subscribed to, that absence means deletion,
// and that a client can ask for everything. Of the other types only what changed
// is sent, nothing can be deleted, and a client names what it wants.
func (t Type) Whole() bool { return t == Clusters || t == Listeners }
