package connpool

import "time"

// Usable looks whether the server sent or closed anything.
func (c *Conn) Usable() bool { return c.usable() }

// CloseExpired looks for idle connections as at another time.
func (p *Pool) CloseExpired(now time.Time) { p.closeExpired(now) }
