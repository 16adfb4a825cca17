package auth

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/netip"

	"github.com/weirproxy/weir/services/discovery/internal/denial"
)

// Caller is who makes a call. Its questions return nil for what it may do, else
// a *denial.Error, which they have counted. The zero Caller may do everything.
type Caller struct {
	// Address is where it calls from. It is the zero one where that is not known.
	Address netip.Addr

	name    string
	rule    *rule // nil if none is needed, or it is not known
	unknown unknown
	by      denial.Reason // what it showed: denial.Token or denial.Identity
	policy  *Policy       // nil for the zero Caller alone
	showed  showed
	rules   *rules // by which all that was judged; nil if there are none
}

// showed is what a caller shows of who it is.
type showed struct {
	token  bool              // a bearer token, the digest of which is here
	digest [sha256.Size]byte // so that no token stays in memory
	other  bool              // an authorization of another scheme
	names  []identity        // of its certificate
}

// judge says who the caller is by rules, nil if there are none.
func (c *Caller) judge(r *rules) {
	names := c.showed.names
	c.rules, c.name, c.rule, c.unknown, c.by = r, "", nil, known, denial.Token
	switch {
	case r == nil:
		if len(names) > 0 {
			c.name = names[0].name
		}
	case c.showed.token:
		if c.rule = r.ofToken(c.showed.digest); c.rule == nil {
			c.unknown = unknownToken
			return
		}
		c.name = c.rule.name
	case len(names) > 0:
		var name identity
		name, c.rule = r.ofIdentities(names)
		c.name, c.by = name.name, denial.Identity
		if c.rule == nil {
			c.unknown = unknownIdentity
			c.name = names[0].name
		}
	case c.showed.other:
		c.unknown = otherScheme
	default:
		c.unknown = noToken
	}
}

// Now is the caller by the rules that are in force now: those of a stream may
// have changed since it was opened.
func (c *Caller) Now() Caller {
	now := *c
	if c.policy != nil {
		if r := c.policy.rules.Load(); r != c.rules {
			now.judge(r)
		}
	}
	return now
}

// unknown is why no rule is for a caller.
type unknown uint8

const (
	known unknown = iota // or nobody must be
	noToken
	otherScheme
	unknownToken
	unknownIdentity
)

// Identity is the name of the caller's token, or the name in its certificate by
// which a rule knows it. It is empty for a caller that did not say who it is.
func (c *Caller) Identity() string { return c.name }

// Actor is the caller's identity where it has one, else its address: what a
// history says of who did something.
func (c *Caller) Actor() string {
	switch {
	case c.name != "":
		return c.name
	case c.Address.IsValid():
		return c.Address.String()
	default:
		return "unknown"
	}
}

// MayRegister asks to change hosts of a service: register them, beat for them by
// name, take them out.
func (c *Caller) MayRegister(service string) error {
	if c.rule != nil && c.rule.allows(service) {
		return nil
	}
	return c.refuse("change hosts of service %q", service)
}

// Registers reports whether MayRegister would let the caller. It counts nothing:
// the caller has not asked to change any hosts.
func (c *Caller) Registers(service string) bool {
	return c.rule != nil && c.rule.allows(service) || c.lacks("change hosts of service %q", service) == nil
}

// MayRegisterAddress asks to have a host at an address, or to take out the one
// that is there. MayRegister asks for the service.
func (c *Caller) MayRegisterAddress(a netip.Addr) error {
	if c.policy == nil || c.rule != nil && c.rule.operator {
		return nil
	}
	bound := c.policy.options.OwnAddress
	a = plain(a)
	if c.rule != nil && c.rule.addresses != nil {
		bound = true
		for _, r := range c.rule.addresses {
			if r.Contains(a) {
				return nil
			}
		}
	}
	if !bound || a == c.Address {
		return nil
	}
	text := fmt.Sprintf("address %v is not that of the caller, %v, and it may register no other", a, c.Address)
	if !c.Address.IsValid() {
		text = fmt.Sprintf("address %v: it is not known to be the caller's, for x-forwarded-for does not tell that of the caller before %d proxies",
			a, c.policy.options.Hops)
	}
	c.policy.options.Denials.Count(denial.Address)
	return &denial.Error{Status: 403, Reason: denial.Address, Text: text}
}

// MayWrite asks to change anything at all, or to beat for hosts by their leases,
// which are as good as tokens: only who registered a host knows its lease.
// Everyone may whom a rule is for. The gate asks it for all calls but reads.
func (c *Caller) MayWrite() error {
	if c.rule != nil {
		return nil
	}
	return c.refuse("change anything")
}

// MayOperate asks to do what is an operator's: settings of hosts that are not
// one's own, and the guards.
func (c *Caller) MayOperate() error {
	if is, _ := c.IsOperator(); is {
		return nil
	}
	return c.refuse(operate)
}

// IsOperator reports whether MayOperate would let the caller, and why not. It
// counts nothing: the caller has asked for nothing that it may not.
func (c *Caller) IsOperator() (is bool, whyNot string) {
	if c.rule != nil && c.rule.operator {
		return true, ""
	}
	if e := c.lacks(operate); e != nil {
		return false, e.Text
	}
	return true, ""
}

// MayBeNode asks to go by a node's id and cluster over xDS and its sisters. Where
// no rule names nodes, everyone may be any.
func (c *Caller) MayBeNode(id, cluster string) error {
	e := c.lacksNode(id, cluster)
	if e == nil {
		return nil
	}
	c.policy.options.Denials.Count(e.Reason)
	return e
}

// IsNode reports whether MayBeNode would let the caller, by the rules that it was
// judged by. It counts nothing.
func (c *Caller) IsNode(id, cluster string) bool { return c.lacksNode(id, cluster) == nil }

func (c *Caller) lacksNode(id, cluster string) *denial.Error {
	if c.rules == nil || !c.rules.binds || c.rule != nil && c.rule.allowsNode(id, cluster) {
		return nil
	}
	e := c.lacks("be node %q of cluster %q (%s)", id, cluster, c.policy.options.File.Path)
	e.Reason = denial.Node
	return e
}

// operate is what MayOperate asks for.
const operate = "do what is an operator's"

// MayRead asks to see hosts, or anything else that is known.
func (c *Caller) MayRead() error {
	if c.rule != nil || c.policy == nil || !c.policy.options.ClosedReads {
		return nil
	}
	return c.refuse("read")
}

// refuse is lacks for a caller that has asked to do what it may not, which it
// counts.
func (c *Caller) refuse(format string, args ...any) error {
	e := c.lacks(format, args...)
	if e == nil {
		return nil
	}
	c.policy.options.Denials.Count(e.Reason)
	return e
}

// lacks returns why a caller may not do something that a rule must allow, or nil
// if no rules are in force.
func (c *Caller) lacks(format string, args ...any) *denial.Error {
	if c.policy == nil || c.rule == nil && c.unknown == known {
		return nil
	}
	e := &denial.Error{Status: 401, Reason: c.by, Challenge: `Bearer realm="discovery"`}
	what := fmt.Sprintf(format, args...)
	switch c.unknown {
	case noToken:
		e.Text = fmt.Sprintf("to %s takes a token, as Authorization: Bearer, or a client certificate that has a rule", what)
	case otherScheme:
		e.Text = fmt.Sprintf("to %s takes a token, as Authorization: Bearer; another scheme is not known", what)
	case unknownToken:
		e.Challenge += `, error="invalid_token"`
		e.Text = fmt.Sprintf("to %s takes a token that is known, and this one is not", what)
	case unknownIdentity:
		e.Status, e.Challenge = 403, ""
		e.Text = fmt.Sprintf("no rule is for identity %q, and to %s takes one", c.name, what)
	case known:
		e.Status, e.Challenge = 403, ""
		e.Text = fmt.Sprintf("the rule of %q does not let it %s", c.name, what)
	}
	return e
}

// callerKey is the key of a context's Caller.
type callerKey struct{}

// callerContext is a context with a Caller, both in one piece: each call has one.
type callerContext struct {
	context.Context
	caller Caller
}

func (c *callerContext) Value(key any) any {
	if key == (callerKey{}) {
		return &c.caller
	}
	return c.Context.Value(key)
}

// NewContext is ctx with a copy of a caller in it.
func NewContext(ctx context.Context, c *Caller) context.Context {
	return &callerContext{ctx, *c}
}

// FromContext returns the caller of a call, which is shared and may not be
// changed. Where the gate put none, it is the zero Caller.
func FromContext(ctx context.Context) *Caller {
	if c, ok := ctx.Value(callerKey{}).(*Caller); ok {
		return c
	}
	return &Caller{}
}
