// Package layeredruntime is Envoy's layered runtime: values by key that change what the
// configuration says while the proxy runs (runtime_key, runtime_fraction and the
// like). Bootstrap parses the layers, app makes one Runtime of them, and the admin
// listener shows it and modifies its admin_layer. Who serves a request asks for a
// Snapshot once and reads all values of that one. It does not know what a value is
// for, and refuses only keys that Envoy itself reads and nothing here does.
package layeredruntime
