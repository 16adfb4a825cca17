package conformance

import (
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
)

// pageBootstrap is a proxy with a cluster of these endpoints, and with names that are markup.
func pageBootstrap(endpoints ...string) string {
	return bootstrap{
		node: "id: edge-1",
		listeners: []listener{{manager: `
route_config:
  name: shop
  virtual_hosts:
  - name: all
    domains: ["*"]
    routes:
    - {match: {path: /tea}, direct_response: {status: 418}}
    - {match: {prefix: "/<b>bold</b>"}, redirect: {path_redirect: /}}
    - {match: {prefix: /}, route: {cluster: users}}
`}},
		clusters: []string{clusterOf("users", "{lb_endpoints: ["+strings.Join(endpoints, ", ")+"]}"), clusterOf(`"<i>empty</i>"`, "")},
	}.String()
}

func TestTheProxysPageShowsListenersClustersAndRoutesWithTheirLoad(t *testing.T) {
	host := harness.Echo(t, "one").Addr("http")
	proxy := harness.Proxy(t, pageBootstrap(endpoint(host), endpoint("127.0.0.9:9", "health_status: UNHEALTHY")))
	load := harness.StartLoad(t, proxy.Addr("ingress"))

	p := &pageOf{t: t, tab: browser(t)}
	chromedp.ListenTarget(p.tab, func(event any) {
		if text := complaint(event); text != "" {
			t.Errorf("the browser complains: %s", text)
		}
	})
	p.do(chromedp.EmulateViewport(1280, 1000), chromedp.Navigate("http://"+proxy.Addr("admin")+"/page"))
	p.shows("#state", "LIVE")
	p.shows("#node", "edge-1")
	p.shows("#about", "No control plane.")
	p.shows("#listeners tbody", "ingress\t"+proxy.Addr("ingress"))
	p.shows("#clusters tbody", "users\tbootstrap\t1 of 2")
	p.shows("#clusters tbody", "<i>empty</i>\tbootstrap\t0 of 0")
	p.shows("#hosts tbody", host+"\thealthy")
	p.shows("#hosts tbody", "127.0.0.9:9\tunhealthy by its assignment")
	p.shows("#routes tbody", "shop\t*\tprefix /<b>bold</b>\tredirect")
	p.shows("#routes tbody", "shop\t*\tprefix /\tusers")
	// Of what passed between two looks.
	p.waits(`/^[1-9]/.test(document.getElementById("rate").innerText)`)
	p.waits(`/^[0-9.]+ m?s$/.test(document.getElementById("median").innerText)`)
	p.waits(`document.querySelectorAll("#history polyline").length === 1`)
	require.Empty(t, load.Stop().Failures)

	p.fill("#filter", "tea")
	p.shows("#routes tbody", "path /tea\tdirect response")
	p.shows("#clusters tbody", "no cluster")
	proxy.Kill()
	p.shows("#state", "does not answer")
}
