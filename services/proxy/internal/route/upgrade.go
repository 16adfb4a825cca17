package route

import (
	"bytes"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// upgrade is what a route says of a protocol that requests may ask for.
type upgrade struct {
	protocol []byte // lower case
	enabled  bool
}

// upgrades reads the upgrade_configs of a route at the path at.
func (p *parser) upgrades(configs []*routev3.RouteAction_UpgradeConfig, at strict.Path) []upgrade {
	var list []upgrade
	seen := map[string]bool{}
	for i, c := range configs {
		at := at.Index(i).Field("upgrade_type")
		name := strings.ToLower(c.GetUpgradeType())
		switch {
		case seen[name]:
			p.report.Add(at, "%q is there twice", c.GetUpgradeType())
		case name == "" || name == "connect" || name == "h2c":
			p.report.Add(at, "%q is not supported: use websocket or another protocol that HTTP/1.1 servers switch to", c.GetUpgradeType())
		}
		seen[name] = true
		enabled := c.GetEnabled() == nil || c.GetEnabled().GetValue()
		p.table.upgrades = p.table.upgrades || enabled
		list = append(list, upgrade{[]byte(name), enabled})
	}
	return list
}

// Upgrades says whether a route of the table may allow requests to ask for another
// protocol that the connection manager does not.
func (t *Table) Upgrades() bool { return t != nil && t.upgrades }

// Upgrade says whether requests may ask for a protocol, and whether the route, which
// may be nil, says so; if it doesn't, the connection manager does (upgrade_configs).
func (r *Route) Upgrade(protocol []byte) (enabled, said bool) {
	if r == nil {
		return false, false
	}
	for i := range r.upgrades {
		if bytes.EqualFold(r.upgrades[i].protocol, protocol) {
			return r.upgrades[i].enabled, true
		}
	}
	return false, false
}
