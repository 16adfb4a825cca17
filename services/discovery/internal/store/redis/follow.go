package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/store/record"
)

const (
	// followEvery is how often the logs are read: all by one command, or in a
	// Cluster by one for each. A command that waits for entries would be told of
	// one by one, and cost Redis more than being asked: it notes who waits, and
	// forgets it again, at each of the logs. Where no other replica runs, they are read
	// with each look alone, which tells of one that begins.
	followEvery = 200 * time.Millisecond
	// entriesAtOnce is how many entries of each log are read at once, and
	// changesAtOnce how many changes and beats are handed over at once, so that
	// the registry holds no lock for long.
	entriesAtOnce = 100
	changesAtOnce = 2000
)

// Follow tells of what other writers do, a tenth of a second later on average, or up to
// a second or two where no other was known until then; and of all beats that Redis
// knows, a few seconds later. Where it finds that it missed something, it reads the
// partition as a whole.
//
// What this store wrote is skipped, unless others write to the partition too: then
// the registry is told of its own changes as well, in the order in which Redis has
// them, to end with what is there.
//
// After an error, of all of Redis or of one server of a Cluster, what the others
// answered has been handed over, and the next call goes on from there.
func (s *Store) Follow(ctx context.Context, apply func(registry.Update)) error {
	ticker := time.NewTicker(followEvery)
	defer ticker.Stop()
	var looked time.Time
	more := false // is in redis' logs
	for {
		look := time.Since(looked) >= lookEvery
		if look {
			looked = time.Now()
		}
		if look || more || !s.isAlone() {
			var err error
			more, err = s.followOnce(ctx, look, apply)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return err
			}
			if more {
				continue
			}
			apply(registry.Update{})
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// followOnce takes one look, if so told, reads the logs, and reads the partitions
// anew for which that is needed. It says whether more is in the logs.
func (s *Store) followOnce(ctx context.Context, look bool, apply func(registry.Update)) (more bool, err error) {
	s.exchange.Lock()
	defer s.exchange.Unlock()
	s.tellHeard(apply)
	if look {
		var answered bool
		if answered, err = s.look(ctx, apply); !answered {
			return false, err
		}
	}
	answered, more, err2 := s.readLogs(ctx, apply)
	if err = errors.Join(err, err2); !answered {
		return false, err
	}
	return more, errors.Join(err, s.readAgain(ctx, apply))
}

// tellHeard hands over the beats that Expire has heard of.
func (s *Store) tellHeard(apply func(registry.Update)) {
	s.mu.Lock()
	heard := s.heard
	if len(heard) > 0 {
		s.heard = map[registry.Key]time.Time{}
	}
	s.mu.Unlock()
	beats := make([]registry.Beat, 0, len(heard))
	for key, at := range heard {
		beats = append(beats, registry.Beat{Key: key, At: at})
	}
	tellBeats(beats, apply)
}

// tellBeats hands beats over.
func tellBeats(beats []registry.Beat, apply func(registry.Update)) {
	for len(beats) > 0 {
		n := min(len(beats), changesAtOnce)
		apply(registry.Update{Beats: beats[:n:n]})
		beats = beats[n:]
	}
}

// readLogs hands over what stands in the logs. It says whether any server
// answered, and whether a log may have more.
func (s *Store) readLogs(ctx context.Context, apply func(registry.Update)) (answered, more bool, err error) {
	streams, answered, err := s.readStreams(ctx)
	if left := s.left(streams); len(left) > 0 {
		// Now, since a reading is the truer the fewer calls it was made with. Where it
		// fails the earlier one tells of later times.
		err = errors.Join(err, s.readClocks(ctx, left))
	}
	var changes []registry.Change
	for _, stream := range streams {
		p := partitionOfKey(stream.Stream)
		changes = append(changes, s.take(p, stream.Messages)...)
		more = more || len(stream.Messages) == entriesAtOnce && !s.partitions[p].again
	}
	for len(changes) > 0 {
		n := min(len(changes), changesAtOnce)
		apply(registry.Update{Changes: changes[:n:n]})
		changes = changes[n:]
	}
	return answered, more, err
}

// readStreams reads the next entries of the logs of all partitions that are
// followed.
func (s *Store) readStreams(ctx context.Context) (streams []goredis.XStream, answered bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	var keys, ids []string
	for p := range s.partitions {
		if followed := &s.partitions[p]; followed.known && !followed.again {
			keys = append(keys, s.keys(p, "log")...)
			ids = append(ids, followed.end.String())
		}
	}
	if len(keys) == 0 {
		return nil, true, nil
	}
	read := func(c goredis.Cmdable, keys, ids []string) *goredis.XStreamSliceCmd {
		args := goredis.XReadArgs{Streams: slices.Concat(keys, ids), Count: entriesAtOnce, Block: -1}
		return c.XRead(ctx, &args)
	}
	if s.place.kind != cluster {
		streams, err = read(s.client, keys, ids).Result()
		switch {
		case err == nil || errors.Is(err, goredis.Nil):
			return streams, true, nil
		case !isOfAnotherType(err):
			return nil, false, s.fault(err)
		}
		streams, err = nil, nil // which log it is Redis says where each is asked for alone
	}
	pipe := s.client.Pipeline()
	commands := make([]*goredis.XStreamSliceCmd, len(keys))
	for i := range keys {
		commands[i] = read(pipe, keys[i:i+1], ids[i:i+1])
	}
	_, failed := pipe.Exec(ctx)
	for i, c := range commands {
		list, wrong := c.Result()
		switch {
		case wrong == nil || errors.Is(wrong, goredis.Nil):
			answered = true
			streams = append(streams, list...)
		case isOfAnotherType(wrong):
			err = errors.Join(err, s.fault(fmt.Errorf("%s: %w", keys[i], wrong)))
		case err == nil:
			err = s.fault(wrong)
		}
	}
	if failed != nil && !errors.Is(failed, goredis.Nil) && err == nil {
		return nil, false, s.fault(failed) // no command was tried at all
	}
	return streams, answered, err
}

// left are the partitions that hosts left, as other writers tell.
func (s *Store) left(streams []goredis.XStream) (list []int) {
	for _, stream := range streams {
		if slices.ContainsFunc(stream.Messages, func(entry goredis.XMessage) bool {
			return entry.Values["k"] == hostRemoved && entry.Values["w"] != s.writer
		}) {
			list = append(list, partitionOfKey(stream.Stream))
		}
	}
	return list
}

// partitionOfKey is the number between the braces.
func partitionOfKey(key string) int {
	tag := key[strings.LastIndexByte(key, '{')+1:]
	p, _ := strconv.Atoi(tag[:strings.IndexByte(tag, '}')])
	return p
}

// take reads entries of the log of a partition, as far as each follows on the one
// before it, and returns the changes that the registry is to be told of. An entry
// without what each has is no replica's, and is left out: those of replicas tell
// whether anything is missing between them.
func (s *Store) take(partition int, entries []goredis.XMessage) (changes []registry.Change) {
	p := &s.partitions[partition]
	for _, entry := range entries {
		text := func(field string) string {
			v, _ := entry.Values[field].(string)
			return v
		}
		id, err := parseID(entry.ID)
		gen, before, after := text("g"), text("b"), text("d")
		if err == nil && (gen == "" || before == "" || after == "") {
			p.end = id
			s.sayForeign(partition, entry.ID)
			continue
		}
		if err != nil || before != p.digest || p.gen != "" && p.gen != gen {
			p.again = true
			return changes
		}
		p.last, p.end, p.gen, p.digest = id, id, gen, after
		if p.shared = p.shared || text("w") != s.writer; !p.shared {
			continue
		}
		change, err := decodeEntry(text, p.clock.Load())
		if err != nil {
			s.skip(partition, text("m"), err)
			continue
		}
		change.Own = text("w") == s.writer
		if change.Record != nil {
			p.heed(change.Record)
		}
		changes = append(changes, change)
	}
	return changes
}

// foreignEvery is how often it is said of a partition that somebody else writes to its
// log.
const foreignEvery = time.Hour

// sayForeign tells of an entry that is no replica's.
func (s *Store) sayForeign(partition int, id string) {
	p := &s.partitions[partition]
	if !p.saidForeign.IsZero() && time.Since(p.saidForeign) < foreignEvery {
		return
	}
	p.saidForeign = time.Now()
	s.options.Log.Error("left out entries in redis that no replica wrote",
		"redis", s.place.String(), "key", s.keys(partition, "log")[0], "first", id)
}

// decodeEntry reads an entry of a log, by its fields. On an error the change may
// still say of whom it was.
func decodeEntry(text func(field string) string, c *clock) (change registry.Change, err error) {
	if event := text("e"); event != "" {
		e, err := record.DecodeEvent([]byte(event))
		if err != nil {
			return change, err
		}
		change.Event = &e
	}
	kind := text("k")
	switch kind {
	case hostPut, hostRemoved:
		change.Key, err = parseHostMember(text("m"))
	case settingPut, settingEnded:
		change.SettingKey, err = parseSettingMember(text("m"))
	default:
		err = errors.New("no such kind of entry: " + strconv.Quote(kind))
	}
	if err != nil {
		return change, err
	}
	switch kind {
	case hostPut:
		r, err := decodeHost(new(record.HostDecoder), text("m"), text("v"))
		if err != nil {
			return change, err
		}
		r.LastCheckIn = c.read(micros(text("a")))
		change.Record = &r
	case hostRemoved:
		if change.Lease, err = parseLease(text("l")); err != nil {
			return change, err
		}
		if went := micros(text("a")); went > 0 { // earlier versions do not say
			change.Went = c.read(went)
		}
	case settingPut:
		setting, err := decodeSetting(text("m"), text("v"))
		if err != nil {
			return change, err
		}
		change.Setting = &setting
	}
	return change, nil
}
