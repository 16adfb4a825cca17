package guard

import (
	"fmt"
	"math"
	"time"
)

// beatRate compares the beats that come in with those that usually do. Both are
// averages that weigh what is past less and less: the recent one over about two
// intervals between the beats of a host, the usual one over minutes.
type beatRate struct {
	at      time.Duration // of the last tick
	waiting int           // beats of ticks that took no time
	seconds float64       // observed in all
	silent  float64       // seconds of those since the last beat
	// interval is how many seconds were between the beats of a host, as usual when
	// the last beat came; 0 before the first.
	interval float64
	recent   float64 // beats a second
	usual    float64 // the same
	hosts    float64 // those that usually are there
	now      int     // those that are there now
	// short and long are over how many seconds is averaged. They are not learned
	// from beats that do not come.
	short, long float64
	lost        bool // as was last judged
}

const (
	shortest, longest = 5, 600 // seconds of the recent average
	usualSeconds      = 300    // of the usual one, at least
	// Silence is when no beat at all came for so many intervals between the beats
	// of a host, of so many hosts at least, so that five were due: of one host alone
	// it says no more than that this one is dead.
	silentIntervals, silentHosts = 2.25, 2
)

// observe takes the beats since the last tick.
func (b *beatRate) observe(n, hosts int, now time.Duration) {
	n += b.waiting
	b.waiting = 0
	passed := (now - b.at).Seconds()
	if passed <= 0 {
		b.waiting = n
		return
	}
	b.at, b.now = now, hosts
	if hosts == 0 && b.seconds == 0 {
		return // nobody has been there yet
	}
	b.seconds += passed
	rate := float64(n) / passed
	if !b.lost {
		b.short, b.long = longest, usualSeconds
		if b.usual > 0 {
			b.short = min(max(2*b.hosts/b.usual, shortest), longest)
		}
		b.long = max(usualSeconds, 5*b.short)
	}
	b.recent += (rate - b.recent) * b.weight(passed, b.short)
	weight := b.weight(passed, b.long)
	b.usual += (rate - b.usual) * weight
	b.hosts += (float64(hosts) - b.hosts) * weight
	b.silent += passed
	if n > 0 {
		b.silent, b.interval = 0, b.hosts/b.usual
	}
}

// weight is that of the last so many seconds in an average over some. At first
// it is that of a plain mean.
func (b *beatRate) weight(passed, over float64) float64 {
	return max(1-math.Exp(-passed/over), passed/b.seconds)
}

// skip makes the time until now one that was not observed.
func (b *beatRate) skip(now time.Duration) { b.at = now }

// expected is how many beats a second there should be: as usual, less those of
// hosts that went. Hosts that came may beat elsewhere.
func (b *beatRate) expected() float64 {
	if b.hosts == 0 {
		return 0
	}
	return b.usual * min(1, float64(b.now)/b.hosts)
}

// judgeLost judges whether less than a share of the beats comes in, if that can
// be judged: at least least of them were expected lately, or none comes in.
func (b *beatRate) judgeLost(share float64, least int) (lost bool) {
	if share == 0 || b.seconds < b.short {
		return false
	}
	expected := b.expected()
	b.lost = expected*b.short >= float64(least) && b.recent < share*expected || b.isSilent()
	return b.lost
}

// isSilent says whether there is silence where beats are usual.
func (b *beatRate) isSilent() bool {
	return b.now >= silentHosts && b.interval > 0 && b.silent >= silentIntervals*b.interval
}

// judgeBack judges whether beats that were lost come in again, or the lesser
// number has become usual. It takes a quarter more than not to lose them.
func (b *beatRate) judgeBack(share float64) (back bool) {
	b.lost = b.recent < min(1.25*share, 1)*b.expected()
	return !b.lost
}

// forget has all learned anew.
func (b *beatRate) forget() { *b = beatRate{at: b.at} }

// leave takes a host out that went at its own wish, as far as it has become usual:
// it was there for age, and beat so often a second.
func (b *beatRate) leave(rate float64, age time.Duration) {
	if b.seconds == 0 {
		return
	}
	share := min(b.weight(age.Seconds(), max(b.long, usualSeconds)), 1)
	b.usual = max(b.usual-share*rate, 0)
	b.hosts = max(b.hosts-share, 0)
}

// String says for people what is lost, as was just judged.
func (b *beatRate) String() string {
	if b.isSilent() {
		return fmt.Sprintf("no beat came in for %s seconds where %s a second are usual for %d hosts", plain(b.silent), plain(b.expected()), b.now)
	}
	return fmt.Sprintf("over %s seconds %s beats a second came in where %s are usual for %d hosts", plain(b.short), plain(b.recent), plain(b.expected()), b.now)
}

// lasting says for people how beats that were lost come in now.
func (b *beatRate) lasting(share float64) string {
	return fmt.Sprintf("now %s come in where %s are usual, and %s end it", plain(b.recent), plain(b.expected()), plain(min(1.25*share, 1)*b.expected()))
}

// plain is x with three digits, without an exponent.
func plain(x float64) string {
	if x >= 100 {
		return fmt.Sprintf("%.0f", x)
	}
	return fmt.Sprintf("%.3g", math.Round(x*1e4)/1e4)
}
