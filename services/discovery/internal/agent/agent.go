// Package agent is the command discovery-agent. It runs a program and keeps it
// registered with discovery for as long as it lives, keeps a file of the hosts
// of services for local readers, and drains and lists hosts for operators and
// scripts. It talks to discovery by way of package client alone. It restarts
// nothing, and a program that lives and answers wrongly is drained, never
// deregistered: that a host is gone is for it to say, or for its TTL.
package agent
