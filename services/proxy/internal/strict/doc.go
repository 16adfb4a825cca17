// Package strict turns configuration text into protobuf messages and refuses
// whatever the proxy does not carry out: an unknown field, a wrong type, a
// duplicate key, a broken rule of Envoy's validators, and any field that no
// package of the proxy has declared as supported. Files (YAML or JSON, by
// Load) and messages from xDS (by Check) meet the same rules and get the same
// paths; bootstrap, xds and every package that reads its part of the
// configuration report into the same Report. It never stops at the first
// fault, never panics on its input, and knows no message of Envoy's by name:
// what is supported is declared by the packages that support it.
package strict
