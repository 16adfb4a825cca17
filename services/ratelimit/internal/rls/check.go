package rls

import (
	"errors"
	"fmt"

	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
)

// check refuses a request that cannot be answered, and completes the others:
// a descriptor without hits of its own counts the request's, which are one at
// least. Most is how many descriptors it may have. The error names the field that
// is wrong and its value.
func (c *call) check(most int) error {
	if c.request.Domain == "" {
		return errors.New("domain: empty")
	}
	if len(c.request.Descriptors) == 0 {
		return errors.New("descriptors: empty")
	}
	if n := len(c.request.Descriptors); n > most {
		return fmt.Errorf("descriptors: %d are more than %d", n, most)
	}
	for i := range c.request.Descriptors {
		d := &c.request.Descriptors[i]
		if !c.own[i].hits {
			d.Hits = uint64(max(1, c.addend))
		}
		if d.Hits > limiter.MaxHits {
			return fmt.Errorf("descriptors[%d].hits_addend: %d is above %d", i, d.Hits, uint64(limiter.MaxHits))
		}
		if d.HasOverride {
			if err := d.Override.Check(); err != nil {
				return fmt.Errorf("descriptors[%d].limit: %w", i, err)
			}
		}
	}
	return nil
}
