package redis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/store/record"
)

const (
	// loadedAtOnce is how many partitions one exchange reads at most.
	loadedAtOnce = 16
	// loadedEvents is of how many entries of a partition's log Load returns the
	// events.
	loadedEvents = 100
)

// Load reads all partitions, each in one step. A record or setting that cannot be
// understood is left out, with a line in the log: one replica of another version
// must not keep the others from starting. The first Load that succeeds also says
// from where Follow goes on.
//
// A partition that holds other values than those that its digest is of lacks some,
// or all of them, which went without a script: what is there is then told as a part. Its
// generation is drawn anew, so that replicas that run give back what they have of it
// at once.
func (s *Store) Load(ctx context.Context) (*registry.Contents, error) {
	s.exchange.Lock()
	defer s.exchange.Unlock()
	state, err := s.state(ctx)
	if err != nil {
		return nil, s.whyMute(ctx, err)
	}
	batches, hosts, err := s.batches(ctx, allPartitions())
	if err != nil {
		return nil, err
	}
	contents := &registry.Contents{Partial: state != stateComplete, Records: make([]registry.Record, 0, hosts)}
	ctx, cancel := context.WithCancel(ctx)
	answers := s.askAhead(ctx, batches, loadedEvents)
	defer func() {
		cancel()
		for range answers { // until it is closed
		}
	}()
	var read []*whole
	gone := false
	for a := range answers {
		wholes, err := s.decodeWholes(a)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(wholes, (*whole).isTorn) {
			gone = true
			if wholes, err = s.mend(ctx, wholes); err != nil {
				return nil, err
			}
		}
		for _, w := range wholes {
			w.addTo(contents)
			w.empty = len(w.contents.Records)+len(w.contents.Settings) == 0
			w.contents = registry.Contents{} // two copies of all are one too many
		}
		read = append(read, wholes...)
	}
	for _, w := range read {
		if p := &s.partitions[w.partition]; !p.known {
			p.goOnFrom(w)
		}
	}
	gone = gone || len(contents.Records) == 0 && slices.ContainsFunc(read, (*whole).isEmptied)
	if gone && state != stateLost { // it does not show any more once there are others
		if err := s.setState(ctx, stateLost); err != nil {
			return nil, err
		}
	}
	contents.Lost = gone || state == stateLost
	contents.Partial = contents.Partial || contents.Lost
	slices.SortStableFunc(contents.Events, func(a, b registry.Event) int { return a.At.Compare(b.At) })
	return contents, nil
}

// mend returns what was read of partitions, those that are torn read anew after their
// digest was set right. That they are is noted before, since it does not show after.
func (s *Store) mend(ctx context.Context, wholes []*whole) ([]*whole, error) {
	if err := s.setState(ctx, stateLost); err != nil {
		return nil, err
	}
	var torn []int
	var calls []*call
	for _, w := range wholes {
		if w.isTorn() {
			torn = append(torn, w.partition)
			calls = append(calls, s.lookCall(w.partition, true))
		}
	}
	s.options.Log.Error("partitions of redis lack what they had", "redis", s.place.String(), "partitions", torn)
	if err := s.run(ctx, calls); err != nil {
		return nil, err
	}
	again, err := s.readWhole(ctx, torn, loadedEvents)
	if err != nil {
		return nil, err
	}
	whole := slices.DeleteFunc(wholes, (*whole).isTorn)
	return append(whole, again...), nil
}

// whole is all of a partition at one moment.
type whole struct {
	partition   int
	contents    registry.Contents
	made        int64 // when that was by Redis' clock, in µs
	clock       *clock
	gen, digest string
	// sum is what the digest of the values that are there is.
	sum sum
	// last is the last entry that a replica wrote, first and end are those of the log.
	last, first, end entryID
	// logged says that the log has an entry, followed that it has the one up to
	// which it was followed.
	logged, followed bool
	// empty says that it holds nothing that can be understood.
	empty bool
}

// isEmptied says whether w is empty, and its digest is not that of nothing.
func (w *whole) isEmptied() bool { return w.empty && w.digest != strings.Repeat("0", 16) }

// isTorn says whether w holds other values than those that its digest is of.
func (w *whole) isTorn() bool { return w.digest != w.sum.String() }

// addTo adds what w holds to contents.
func (w *whole) addTo(contents *registry.Contents) {
	contents.Records = append(contents.Records, w.contents.Records...)
	contents.Settings = append(contents.Settings, w.contents.Settings...)
	contents.Events = append(contents.Events, w.contents.Events...)
	contents.Buried = append(contents.Buried, w.contents.Buried...)
	contents.News = append(contents.News, w.contents.News...)
}

// takeAllForNews has w say of all hosts that they may have been put a moment ago.
func (w *whole) takeAllForNews() {
	w.contents.News = nil
	for _, r := range w.contents.Records {
		w.contents.News = append(w.contents.News, r.Host.Key)
	}
}

// goOnFrom makes w what the registry was told of p.
func (p *partition) goOnFrom(w *whole) {
	p.known, p.again = true, false
	p.gen, p.digest, p.last, p.end = w.gen, w.digest, w.last, w.end
	p.heard = w.made
}

// heed notes what the store has to know of a host of p.
func (p *partition) heed(r *registry.Record) { p.short = p.short || r.Host.TTL < shortTTL }

// batches spreads partitions over exchanges that read them, of exchangeSize hosts at
// most, but for a partition that has more by itself; hosts is how many all have. Those of
// which Redis does not say that are in none; the error is the first of theirs.
func (s *Store) batches(ctx context.Context, list []int) (batches [][]int, hosts int, err error) {
	calls := make([]*call, len(list))
	for i, p := range list {
		calls[i] = &call{partition: p, args: []any{"hlen", s.keys(p, "rec")[0]}}
	}
	err = s.run(ctx, calls)
	var batch []int
	size := 0
	for _, c := range calls {
		n, unknown := c.answer.Int()
		if unknown != nil {
			err = cmp.Or(err, s.fault(unknown))
			continue
		}
		if len(batch) == loadedAtOnce || len(batch) > 0 && size+n > exchangeSize {
			batches = append(batches, batch)
			batch, size = nil, 0
		}
		batch = append(batch, c.partition)
		size += n
		hosts += n
	}
	if len(batch) > 0 {
		batches = append(batches, batch)
	}
	return batches, hosts, err
}

// readWhole reads some partitions in one exchange, with the events of so many
// entries of each. On an error there are those that could be read.
func (s *Store) readWhole(ctx context.Context, list []int, events int) ([]*whole, error) {
	return s.decodeWholes(s.askWhole(ctx, list, events))
}

// askAhead asks for all partitions of some batches, one batch after the other, and for
// the next while the one before it is decoded. The caller has to take all answers, until
// they are closed; after ctx ended they come at once.
func (s *Store) askAhead(ctx context.Context, batches [][]int, events int) <-chan wholeAnswers {
	answers := make(chan wholeAnswers)
	// Ends when all answers were taken.
	go func() {
		defer close(answers)
		for _, list := range batches {
			answers <- s.askWhole(ctx, list, events)
		}
	}()
	return answers
}

// wholeAnswers are those of wholeScript on some partitions, as far as they were
// answered, between which times, and the error of the others.
type wholeAnswers struct {
	calls           []*call
	asked, answered time.Time
	err             error
}

// askWhole asks for what readWhole reads.
func (s *Store) askWhole(ctx context.Context, list []int, events int) wholeAnswers {
	calls := make([]*call, len(list))
	for i, p := range list {
		calls[i] = &call{
			partition: p, script: wholeScript, keys: s.keys(p, "rec", "beat", "log", "ovr", "meta", "tomb"),
			args: []any{s.partitions[p].last.String(), events},
		}
	}
	asked := time.Now()
	err := s.run(ctx, calls)
	answered := time.Now()
	calls = slices.DeleteFunc(calls, func(c *call) bool { return c.answer.Err() != nil })
	return wholeAnswers{calls, asked, answered, err}
}

// decodeWholes reads answers.
func (s *Store) decodeWholes(a wholeAnswers) ([]*whole, error) {
	calls, err := a.calls, a.err
	wholes, errs := make([]*whole, len(calls)), make([]error, len(calls))
	var decoding sync.WaitGroup
	for i, c := range calls {
		// Ends by itself; waited for below.
		decoding.Go(func() {
			wholes[i], errs[i] = s.decodeWhole(c, a.asked, a.answered)
		})
	}
	decoding.Wait()
	for i, wrong := range errs {
		if wrong != nil {
			err = errors.Join(err, s.fault(fmt.Errorf("partition %d: %w", calls[i].partition, wrong)))
		}
	}
	return slices.DeleteFunc(wholes, func(w *whole) bool { return w == nil }), err
}

// decodeWhole reads the answer of wholeScript, which was made between two times.
func (s *Store) decodeWhole(c *call, asked, answered time.Time) (*whole, error) {
	answer, err := c.answer.Slice()
	if err != nil {
		return nil, err
	}
	a := reader{answer: answer}
	w := &whole{partition: c.partition, made: a.number()}
	if a.err == nil {
		s.partitions[c.partition].note(asked, answered, w.made)
		w.clock = s.partitions[c.partition].clock.Load()
	}
	have := a.text()
	w.gen, w.digest = a.text(), a.text()
	w.last = a.id()
	first, end := a.text(), a.text()
	w.logged, w.followed = first != "", a.number() > 0
	records, settings, beats, events, buried, put := a.texts(), a.texts(), a.texts(), a.texts(), a.texts(), a.texts()
	if a.err == nil {
		w.first, a.err = parseID(first)
	}
	if a.err == nil {
		w.end, a.err = parseID(end)
	}
	if w.end.compare(w.last) < 0 { // the log was cut, or is gone
		w.end = w.last
	}
	switch {
	case a.err != nil:
		return nil, a.err
	case have != "" && have != schema:
		return nil, fmt.Errorf("its data has schema %q, and this version knows %q", have, schema)
	}
	last := make(map[string]int64, len(beats)/2)
	for i := 0; i+1 < len(beats); i += 2 {
		last[beats[i]] = micros(beats[i+1])
	}
	w.contents.Records = make([]registry.Record, 0, len(records)/2)
	var hosts record.HostDecoder
	for i := 0; i+1 < len(records); i += 2 {
		w.sum.add(records[i+1])
		r, err := decodeHost(&hosts, records[i], records[i+1])
		if err != nil {
			s.skip(c.partition, records[i], err)
			continue
		}
		if r.LastCheckIn = r.FirstSeen; last[records[i]] > 0 {
			r.LastCheckIn = w.clock.read(last[records[i]])
		}
		s.partitions[c.partition].heed(&r)
		w.contents.Records = append(w.contents.Records, r)
	}
	for i := 0; i+1 < len(settings); i += 2 {
		w.sum.add(settings[i+1])
		setting, err := decodeSetting(settings[i], settings[i+1])
		if err != nil {
			s.skip(c.partition, settings[i], err)
			continue
		}
		w.contents.Settings = append(w.contents.Settings, setting)
	}
	for _, text := range slices.Backward(events) {
		event, err := record.DecodeEvent([]byte(text))
		if err != nil {
			s.skip(c.partition, "an event", err)
			continue
		}
		w.contents.Events = append(w.contents.Events, event)
	}
	for i := 0; i+1 < len(buried); i += 2 {
		if strings.HasPrefix(buried[i], "+") { // it registered again
			continue
		}
		lease, err := parseLease(buried[i])
		if err != nil {
			s.skip(c.partition, "a lease", err)
			continue
		}
		w.contents.Buried = append(w.contents.Buried, registry.Burial{Lease: lease, At: w.buriedAt(micros(buried[i+1]))})
	}
	for _, member := range put {
		key, err := parseHostMember(member)
		if err != nil {
			s.skip(c.partition, "an entry", err)
			continue
		}
		w.contents.News = append(w.contents.News, key)
	}
	return w, nil
}

// buriedAt is when a lease was buried that stays so until a time of Redis'; zero where
// that is not known. Earlier versions buried for half as long, and such a burial looks as
// one of ours from over cutOff ago. So a replica that was cut off for longer, up to twice
// that, drops a host that deregistered elsewhere before and then registered there: until
// the host registers once more, which each beat by REST v1 does.
func (w *whole) buriedAt(until int64) time.Time {
	if until <= w.made+cutOff.Microseconds() {
		return time.Time{}
	}
	return w.clock.read(until - tombTime.Microseconds())
}

// skip tells of something in Redis that cannot be understood.
func (s *Store) skip(partition int, what string, why error) {
	s.options.Log.Error("left out what lies in redis and cannot be understood",
		"redis", s.place.String(), "partition", partition, "of", what, "reason", why)
}

// decodeHost reads the value of a host.
func decodeHost(hosts *record.HostDecoder, member, value string) (registry.Record, error) {
	text, err := textOf(value)
	if err != nil {
		return registry.Record{}, err
	}
	r, err := hosts.Decode(text)
	switch head := value[16:valueHead]; {
	case err != nil:
	case hostMember(r.Host.Key) != member:
		err = fmt.Errorf("it is of host %q of %q", r.Host.ID, r.Host.Service)
	case head != leaseText(r.Lease): // scripts go by that
		err = fmt.Errorf("its lease is %q, and that of the record %q", head, leaseText(r.Lease))
	}
	return r, err
}

// decodeSetting reads the value of a setting.
func decodeSetting(member, value string) (registry.Setting, error) {
	text, err := textOf(value)
	if err != nil {
		return registry.Setting{}, err
	}
	setting, err := record.DecodeSetting(text)
	if err == nil && settingMember(setting.Key()) != member {
		err = fmt.Errorf("it is of setting %v", setting.Key())
	}
	return setting, err
}

// reader takes an answer apart, one part after the other. After the first part
// that is not as it should be, err says so and all others are empty.
type reader struct {
	answer []any
	err    error
}

// next is the next part.
func (r *reader) next() any {
	if r.err == nil && len(r.answer) == 0 {
		r.err = fmt.Errorf("the answer ends too soon")
	}
	if r.err != nil {
		return nil
	}
	part := r.answer[0]
	r.answer = r.answer[1:]
	return part
}

// as reports a part that is not what it should be.
func (r *reader) as(ok bool, part any, wanted string) {
	if !ok {
		r.err = cmp.Or(r.err, fmt.Errorf("an answer has %T in the place of %s", part, wanted))
	}
}

func (r *reader) number() int64 {
	part := r.next()
	n, ok := part.(int64)
	r.as(ok, part, "a number")
	return n
}

func (r *reader) text() string {
	part := r.next()
	text, ok := part.(string)
	r.as(ok, part, "a text")
	return text
}

func (r *reader) id() entryID {
	id, err := parseID(r.text())
	r.err = cmp.Or(r.err, err)
	return id
}

// texts is a list of texts.
func (r *reader) texts() []string {
	part := r.next()
	list, ok := part.([]any)
	r.as(ok, part, "a list")
	texts := make([]string, len(list))
	for i := range list {
		texts[i], ok = list[i].(string)
		r.as(ok, list[i], "a text")
	}
	return texts
}
