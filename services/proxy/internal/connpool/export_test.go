package connpool

import "time"

// CloseExpired looks for idle connections as at another time.
func (p *Pool) CloseExpired(now time.Time) { p.closeExpired(now) }
