package adminapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"google.golang.org/protobuf/types/known/durationpb"
)

// serverInfo serves /server_info.
func (a *api) serverInfo(w http.ResponseWriter, _ url.Values) error {
	uptime := durationpb.New(time.Since(a.Started).Truncate(time.Second))
	return writeMessage(w, &adminv3.ServerInfo{
		Version:            a.Version,
		State:              adminv3.ServerInfo_State(adminv3.ServerInfo_State_value[a.State()]),
		UptimeCurrentEpoch: uptime,
		UptimeAllEpochs:    uptime,
		HotRestartVersion:  "disabled",
		CommandLineOptions: a.CommandLine,
		Node:               a.Node,
	}, true)
}

// listeners serves /listeners.
func (a *api) listeners(w http.ResponseWriter, query url.Values) error {
	format, err := choice(query, "format", "text", "json")
	if err != nil {
		return err
	}
	var text bytes.Buffer
	var message adminv3.Listeners
	for _, l := range a.Listeners.States() {
		fmt.Fprintf(&text, "%s::%s\n", l.Name, l.Address)
		status := &adminv3.ListenerStatus{Name: l.Name}
		if bound, err := netip.ParseAddrPort(l.Address.String()); err == nil {
			status.LocalAddress = address(bound)
		}
		message.ListenerStatuses = append(message.ListenerStatuses, status)
	}
	if format == "json" {
		return writeMessage(w, &message, false)
	}
	writeText(w, text.Bytes())
	return nil
}

// xdsType is the state of one type of resources as /xds shows it.
type xdsType struct {
	TypeURL string     `json:"type_url"`
	Source  string     `json:"source,omitempty"` // if it is not ADS
	Names   []string   `json:"names,omitempty"`
	Version string     `json:"version"`
	Updated *time.Time `json:"updated,omitempty"`
	Refused string     `json:"refused,omitempty"`
}

// xdsState is what /xds shows. Without a control plane it is empty.
type xdsState struct {
	Connected  bool      `json:"connected"`
	Identifier string    `json:"identifier,omitempty"`
	Types      []xdsType `json:"types"`
}

// xds serves /xds.
func (a *api) xds(w http.ResponseWriter, _ url.Values) error {
	state := xdsState{Types: []xdsType{}}
	status := a.ControlPlane.Status()
	state.Connected, state.Identifier = status.Connected, status.Identifier
	for _, t := range status.Types {
		shown := xdsType{TypeURL: t.TypeURL, Source: t.Source, Names: t.Names, Version: t.Version, Refused: t.Refused}
		if !t.Updated.IsZero() {
			shown.Updated = &t.Updated
		}
		state.Types = append(state.Types, shown)
	}
	text, err := json.Marshal(state)
	if err != nil {
		return err
	}
	writeJSON(w, text)
	return nil
}
