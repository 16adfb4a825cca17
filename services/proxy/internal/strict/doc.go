// Package strict refuses whatever the proxy does not carry out: any field that no
// package of the proxy has declared as supported, any type in an Any that none
// has, and what breaks a rule of Envoy's validators. Files (YAML or JSON, read by
// protoyaml for Load) and messages from xDS (by Check) meet the same rules and
// get the same paths; bootstrap, xds and every package that reads its part of the
// configuration report into the same Report. It never stops at the first fault,
// never panics on its input, and knows no message of Envoy's by name: what is
// supported is declared by the packages that support it.
package strict
