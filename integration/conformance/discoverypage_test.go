package conformance

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	browserlog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
)

// pageOf is discovery with its page open in a real browser.
type pageOf struct {
	*harness.Process
	t      *testing.T
	tab    context.Context
	client *http.Client
}

// openDiscovery starts discovery and opens its page. The test fails if the browser
// complains of it.
func openDiscovery(t *testing.T, settings ...string) *pageOf {
	t.Helper()
	p := &pageOf{t: t, tab: browser(t), client: harness.Client(t)}
	chromedp.ListenTarget(p.tab, func(event any) {
		if text := complaint(event); text != "" {
			t.Errorf("the browser complains: %s", text)
		}
	})
	p.Process = harness.Discovery(t, settings...)
	p.do(chromedp.EmulateViewport(1280, 1000), chromedp.Navigate("http://"+p.Addr("http")+"/"))
	return p
}

// complaint is what a browser says of a script that fails, or does what the page's
// policy forbids; empty for any other event. Calls that are refused are none: the
// page itself shows them.
//
//nolint:forbidigo // the log of a browser
func complaint(event any) string {
	switch event := event.(type) {
	case *runtime.EventExceptionThrown:
		return event.ExceptionDetails.Error()
	case *browserlog.EventEntryAdded:
		if event.Entry.Level == browserlog.LevelError && event.Entry.Source != browserlog.SourceNetwork {
			return event.Entry.Text
		}
	}
	return ""
}

func (p *pageOf) do(actions ...chromedp.Action) {
	p.t.Helper()
	require.NoError(p.t, chromedp.Run(p.tab, actions...))
}

// reloads does what makes the browser load the page anew, and waits for that.
func (p *pageOf) reloads(actions ...chromedp.Action) {
	p.t.Helper()
	_, err := chromedp.RunResponse(p.tab, actions...)
	require.NoError(p.t, err)
}

// shows waits until an element shows a text.
func (p *pageOf) shows(selector, want string) {
	p.t.Helper()
	p.waits(`document.querySelector(%s)?.checkVisibility() && document.querySelector(%[1]s).innerText.includes(%s)`, selector, want)
}

// hides waits until an element is not there, or not to be seen.
func (p *pageOf) hides(selector string) {
	p.t.Helper()
	p.waits(`!document.querySelector(%s)?.checkVisibility()`, selector)
}

// waits waits until an expression with texts in it is true.
func (p *pageOf) waits(expression string, texts ...string) {
	p.t.Helper()
	quoted := make([]any, len(texts))
	for i, text := range texts {
		b, err := json.Marshal(text)
		require.NoError(p.t, err)
		quoted[i] = string(b)
	}
	expression = fmt.Sprintf(expression, quoted...)
	if err := chromedp.Run(p.tab, chromedp.Poll(expression, nil, chromedp.WithPollingTimeout(slowMachine))); err != nil {
		var text string
		_ = chromedp.Run(p.tab, chromedp.Evaluate(`document.body.innerText`, &text))
		require.NoError(p.t, err, "%s\nthe page shows:\n%s", expression, text)
	}
}

// evaluate is the value of an expression.
func (p *pageOf) evaluate(expression string) (value any) {
	p.t.Helper()
	p.do(chromedp.Evaluate(expression, &value))
	return value
}

func (p *pageOf) click(selector string) {
	p.t.Helper()
	p.do(chromedp.Click(selector, chromedp.ByQuery, chromedp.NodeEnabled))
}

// fill types into a field, in the place of what is in it.
func (p *pageOf) fill(selector, text string) {
	p.t.Helper()
	p.do(chromedp.Focus(selector, chromedp.ByQuery), chromedp.Evaluate(`document.activeElement.select()`, nil),
		chromedp.SendKeys(selector, text, chromedp.ByQuery))
}

// call makes a call of the JSON API, which must succeed, and returns its answer.
func (p *pageOf) call(method, path, body string) string {
	p.t.Helper()
	answer, err := harness.Send(p.client, harness.Request{
		Method: method, URL: "http://" + p.Addr("http") + path, Body: body,
		Header: http.Header{"Content-Type": {"application/json"}},
	})
	require.NoError(p.t, err)
	require.Less(p.t, answer.Status, 300, "%s", answer.Body)
	return answer.Body
}

// put registers a host; more is further members of it.
func (p *pageOf) put(service, id, address, more string) {
	p.t.Helper()
	p.call("PUT", "/v2/services/"+url.PathEscape(service)+"/hosts/"+url.PathEscape(id), `{"address":"`+address+`","port":8080`+more+`}`)
}

func TestDiscoverysPageShowsHostsAsTheyComeAndAreDrained(t *testing.T) {
	p := openDiscovery(t, "APPLICATION_ENV=staging", "DISCOVERY_IDENTIFIER=d-1", "DISCOVERY_DRAIN_TIME=1h", "DISCOVERY_WARM_UP=0s")
	p.shows("#state", "ready")
	p.shows("#replica", "Replica d-1 of staging.")
	p.shows("#live", "Live.")
	p.shows("#services", "no such service")

	p.put("users", "a", "10.0.0.1", `,"zone":"eu-1a","revision":"r1","weight":10,"ttl":"10m","ports":{"grpc":9090},"tags":{"rack":"7"}`)
	p.shows("#services tbody", "users\t1")
	p.shows("#totals", "1 host of 1 service.")
	p.shows("#history tbody", "registered\tusers\ta\t127.0.0.1")
	p.click("#services a")
	p.shows("#service-name", "users")
	p.shows("#hosts tbody", "10.0.0.1:8080\ngrpc at 9090")
	p.put("users", "b", "fd00::2", `,"zone":"eu-1b","revision":"r2","canary":true,"ttl":"10m"`)
	p.shows("#hosts tbody", "[fd00::2]:8080")
	p.shows("#hosts tbody", "s of 10 min\tserving\teu-1b\tr2\t–\tcanary")
	p.shows("#zones tbody", "eu-1a\t1\t1\t50 %")
	p.shows("#revisions tbody", "r2\t1\t1\t1")
	p.click("#hosts summary")
	p.shows("#hosts pre", `rack: "7"`)

	p.fill("#host-search", "EU-1B")
	p.waits(`document.querySelectorAll("#hosts tbody tr").length === 1`)
	p.shows("#hosts tbody", "[fd00::2]:8080")
	p.fill("#host-search", "a")
	p.shows("#hosts tbody", "10.0.0.1:8080")

	p.click(`[aria-label="Set… host a"]`)
	p.shows("#dialog-title", "Set host a of users")
	p.shows("#dialog-text", "This concerns 1 host, 1 of which serves now.")
	p.hides("#dialog-last")
	p.fill(`[name=reason]`, "new racks")
	p.fill(`[name=author]`, "ada")
	p.click("#dialog-do")
	p.shows("#hosts tbody", "draining\ndrain by ada: new racks")
	p.hides("#dialog")
	require.Contains(t, p.call("GET", "/v2/services/users/hosts/a", ""), `"state":"draining"`)
	p.shows("#settings tbody", "drain\thost a of users\tnew racks\tada")
	p.shows("#history tbody", "setting made\tusers\ta\tada\tdrain: new racks")
	p.shows("#services tbody", "users\t2\t1 draining")

	// The last one that serves is not drained by an oversight.
	p.click(`#set-service`)
	p.shows("#dialog-last", "no host of the service will serve then")
	p.click("#dialog-cancel")
	p.hides("#dialog")

	p.click(`[aria-label="Up… host a"]`)
	p.shows("#dialog-text", "drain of host a of users, by ada: new racks")
	p.click("#dialog-do")
	p.shows("#settings", "nothing is set")
	p.shows("#hosts tbody", "serving\teu-1a\tr1\t10")

	p.click("#set-service")
	p.click(`[value=weight]`)
	p.hides("#dialog-last")
	p.fill("[name=weight]", "50")
	p.fill("[name=reason]", "a trial")
	p.click("#dialog-do") // the author is remembered
	p.shows("#hosts tbody", "50\nset; its own is 10")
	require.Contains(t, p.call("GET", "/v2/services/users/hosts/a", ""), `"weight":50,"own_weight":10`)
	p.click(`[aria-label="End… weight of all of users"]`)
	p.click("#dialog-do")
	p.shows("#hosts tbody", "serving\teu-1a\tr1\t10\t")

	p.Kill()
	p.shows("#state", "does not answer")
	p.shows("#live", "Not live since")
	p.shows("#hosts tbody", "10.0.0.1:8080") // what was known stays
	p.Restart()
	p.shows("#live", "Live.")
	p.shows("#service-text", "No such service is known.") // it keeps nothing over a restart
}

func TestDiscoverysPageTakesNoTextOfAHostForMarkup(t *testing.T) {
	p := openDiscovery(t)
	const harm = `"'><script>window.harmed=1</script><img src=x onerror=window.harmed=1>`
	text, err := json.Marshal(harm)
	require.NoError(t, err)
	service := "../" + harm + "#?%2F&__proto__"
	p.put(service, harm, "10.0.0.1", fmt.Sprintf(`,"zone":%[1]s,"revision":%[1]s,"tags":{%[1]s:{"__proto__":%[1]s}}`, text))
	p.put("__proto__", "constructor", "10.0.0.2", `,"zone":"__proto__","ports":{"constructor":1}`)
	p.shows("#services tbody", service)
	p.click(`#services tr:first-child a`)
	p.shows("#service-name", service)
	p.shows("#hosts tbody th", harm)
	p.shows("#zones tbody th", harm)
	p.shows("#revisions tbody th", harm)
	p.shows("#history tbody", harm)
	p.click("#hosts summary")
	p.shows("#hosts pre", harm+`: {"__proto__":"`+strings.ReplaceAll(harm, `"`, `\"`)+`"}`)
	p.click("#hosts button")
	p.shows("#dialog-title", harm)
	p.fill("[name=reason]", harm)
	p.fill("[name=author]", harm)
	p.click("#dialog-last input")
	p.click("#dialog-do")
	p.shows("#settings tbody", harm)
	p.shows("#hosts tbody", "draining\ndrain by "+harm)
	require.Equal(t, "0 1 undefined", p.evaluate(
		`document.querySelectorAll("img, iframe, [onerror]").length + " " + document.scripts.length + " " + typeof window.harmed`))

	p.click(`#services tr:last-child a`)
	p.shows("#service-name", "__proto__")
	p.shows("#hosts tbody", "constructor at 1")
	p.shows("#zones tbody", "__proto__\t1\t1\t100 %")
}

func TestDiscoverysPageIsOfUseWithThousandsOfServices(t *testing.T) {
	p := openDiscovery(t)
	for i := range 3000 {
		p.put(fmt.Sprintf("service-%04d", i), "a", "10.0.0.1", "")
	}
	p.shows("#services-section .pager", "1–100 of 3,000")
	p.waits(`document.querySelectorAll("#services tbody tr").length === 100`)
	p.shows("#totals", "3,000 hosts of 3,000 services.")
	p.click("#services-section .pager button:last-child")
	p.shows("#services tbody tr:first-child", "service-0100")
	p.fill("#service-search", "-2999")
	p.waits(`document.querySelectorAll("#services tbody tr").length === 1`)
	p.shows("#services tbody", "service-2999\t1")
	p.hides("#services-section .pager")
	p.fill("#service-search", "service-")
	p.shows("#services tbody tr:first-child", "service-0000")

	p.call("PUT", "/v2/settings/drain", `{"scope":{"service":"service-1234"},"author":"ada","reason":"r"}`)
	p.do(chromedp.SetValue("#service-filter", "unsettled", chromedp.ByQuery), chromedp.Evaluate(
		`document.querySelector("#service-filter").dispatchEvent(new Event("input"))`, nil))
	p.shows("#services tbody", "service-1234\t1\t1 draining")
	p.waits(`document.querySelectorAll("#services tbody tr").length === 1`)
}

func TestDiscoverysPageTellsWhyDeadHostsStayAndLetsThemGo(t *testing.T) {
	p := openDiscovery(t, "DISCOVERY_GUARD_LAST_HOST=-1", "DISCOVERY_STORE=file://"+filepath.Join(t.TempDir(), "hosts"))
	p.put("users", "a", "10.0.0.1", `,"ttl":"1s"`)
	p.put("mail", "b", "10.0.0.2", `,"ttl":"10m"`)
	p.shows("#services tbody", "users")
	p.click(`#services tr:last-child a`)
	p.shows("#guard-list", "Holding 1 host: last host of its service, which stays longer.")
	p.shows("#totals", "2 hosts of 2 services, 1 stale.")
	p.shows("#hosts tbody", "serving, stale")
	p.shows("#services tbody", "1 stale")

	p.Stop()
	p.Restart()
	p.shows("#guard-list", "No host expires: discovery has started lately and did not hear the beats before.")
	p.click("#lift")
	p.fill("[name=reason]", "it was turned off")
	p.click("#dialog-do")
	p.shows("#guard-state", "No guard acts.")
	p.hides("#guard")
	p.shows("#hosts", "no such host")
	p.shows("#history tbody", "expired\tusers\ta")
}

func TestDiscoverysPageLetsOnlyAnOperatorChangeAnything(t *testing.T) {
	const reader, operator = "the-token-of-a-team-that-reads", "the-token-of-an-operator"
	file := filepath.Join(t.TempDir(), "auth.yaml")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, "tokens:\n- {name: team, sha256: %x, services: [users]}\n- {name: ops, sha256: %x, operator: true}\n",
		sha256.Sum256([]byte(reader)), sha256.Sum256([]byte(operator))), 0o600))
	p := openDiscovery(t, "DISCOVERY_AUTH_FILE="+file, "DISCOVERY_READS=closed")
	show := func(token string) {
		t.Helper()
		p.do(chromedp.Evaluate(`document.querySelector("#who").open = true`, nil))
		p.fill("#token", token)
		p.reloads(chromedp.Click("#token-form button", chromedp.ByQuery))
	}
	p.shows("#state", "does not know you: to read takes a token")
	show("no-such-token")
	p.shows("#state", "takes a token that is known, and this one is not")

	show(reader)
	p.shows("#state", "ready")
	p.shows("#caller", "You are team.")
	p.shows("#denied", "You may look on, and change nothing")
	answer, err := harness.Send(p.client, harness.Request{
		Method: "PUT", URL: "http://" + p.Addr("http") + "/v2/services/users/hosts/a", Body: `{"address":"10.0.0.1","port":1}`,
		Header: http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + reader}},
	})
	require.NoError(t, err)
	require.Equal(t, 201, answer.Status, answer.Body)
	p.click("#services a")
	p.shows("#hosts tbody", "10.0.0.1:1")
	p.waits(`[...document.querySelectorAll(".act")].every(button => button.disabled)`)

	show(operator)
	p.shows("#caller", "You are ops.")
	p.hides("#denied")
	p.click("#hosts button")
	p.hides("#dialog-author") // the token says who
	p.fill("[name=reason]", "new racks")
	p.click("#dialog-last input")
	p.click("#dialog-do")
	p.shows("#hosts tbody", "drain by ops: new racks")
	p.reloads(chromedp.Reload())
	p.shows("#caller", "You are ops.") // as long as the tab is open
	require.Equal(t, float64(0), p.evaluate(`localStorage.length`))
	require.Empty(t, p.evaluate(`document.cookie`))

	p.do(chromedp.Evaluate(`document.querySelector("#who").open = true`, nil))
	p.reloads(chromedp.Click("#forget", chromedp.ByQuery))
	p.shows("#state", "does not know you")
	p.shows("#hosts", "…") // what the operator saw is gone
}

func TestDiscoverysPageIsReadableOnAPhoneAndByKeyboard(t *testing.T) {
	p := openDiscovery(t)
	p.do(chromedp.EmulateViewport(360, 740))
	p.put("users", strings.Repeat("long-", 40), "10.0.0.1", `,"zone":"`+strings.Repeat("z", 200)+`"`)
	p.shows("#services tbody", "users")
	fits := `document.documentElement.scrollWidth <= window.innerWidth`
	p.waits(fits)
	p.do(chromedp.Focus("#services a", chromedp.ByQuery), chromedp.KeyEvent("\r"))
	p.shows("#service-name", "users")
	p.shows("#hosts tbody", "10.0.0.1:8080")
	p.hides("#services-section")
	p.waits(fits)

	p.do(chromedp.Focus("#hosts button", chromedp.ByQuery), chromedp.KeyEvent("\r"))
	p.shows("#dialog", "What to set")
	p.waits(fits)
	p.do(chromedp.KeyEvent("\u001b"))
	p.hides("#dialog")
	p.waits(`document.activeElement === document.querySelector("#hosts button")`)
	p.shows("#live", "Live.")
	p.click("#back a")
	p.shows("#services-section", "users")
}
