// Package layeredruntime is Envoy's layered runtime: values by key that change what the
// configuration says while the proxy runs (runtime_key, runtime_fraction and the
// like). Bootstrap parses the layers, app makes one Runtime of them, and the admin
// listener shows it and modifies its admin_layer. Who serves a request asks for a
// Snapshot once and reads all values of that one; but the active_request_bias of
// balancers, the connection limits of listeners and the filters of access logs are by
// the Snapshot that is present then, and the panic threshold of clusters is by the one
// that was when their hosts, or the health of those, changed last. What the values of
// keys are for it leaves to who names them in the configuration. It knows the keys that
// Envoy itself reads: it checks the values of those that are read here too, and refuses
// the others.
package layeredruntime
