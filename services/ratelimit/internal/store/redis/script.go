package redis

import (
	"context"
	"math"

	goredis "github.com/redis/go-redis/v9"
)

// giveBackScript takes hits out of a counter, no more than it has. It touches
// none that is not there, so that it makes none without a time to live.
const giveBackScript = `
local now = tonumber(redis.call('GET', KEYS[1]) or 0)
if not now then return redis.error_reply('ERR value is not an integer or out of range') end
if now <= 0 then return 0 end
return redis.call('DECRBY', KEYS[1], math.min(now, tonumber(ARGV[1])))
`

// stepScript carries out a call that is one step. KEYS are the counters;
// ARGV has three numbers for each: the hits, below 0 to give back, the most that
// fits, and the milliseconds to live. First it tries all of them, on copies of
// the counters; if any is over, those that are not, and count, then only look. A
// counter that is full fails to grow, and is over all the same. It returns what
// each operation is decided by, that is the counter after it, or of one that is
// over after the trial; and then what the counter of each stands at after it.
const stepScript = `
local at, after, over, any = {}, {}, {}, false
for i, key in ipairs(KEYS) do
  local hits = tonumber(ARGV[3*i-2])
  local now = at[key] or tonumber(redis.call('GET', key) or 0)
  if not now then return redis.error_reply('ERR value is not an integer or out of range') end
  now = math.max(0, now + hits)
  at[key], after[i] = now, math.min(now, 2^53)
  over[i] = hits >= 0 and now > tonumber(ARGV[3*i-1])
  any = any or over[i]
end
for i, key in ipairs(KEYS) do
  local hits = tonumber(ARGV[3*i-2])
  local now
  if hits > 0 and (over[i] or not any) then
    now = redis.pcall('INCRBY', key, hits)
    if now == hits then redis.call('PEXPIRE', key, ARGV[3*i]) end
    if type(now) == 'table' then
      if not string.find(now.err, 'overflow', 1, true) then return now end
      now = 2^53
    end
  else
    now = tonumber(redis.call('GET', key) or 0)
    if hits < 0 and now > 0 then now = redis.call('DECRBY', key, math.min(now, -hits)) end
  end
  now = math.min(now, 2^53)
  if not over[i] then after[i] = now end
  after[#KEYS+i] = now
end
return after
`

// giveBackHash and stepHash are what Redis calls the scripts by; they are of
// type any so that they are boxed once.
var (
	giveBackHash any = goredis.NewScript(giveBackScript).Hash()
	stepHash     any = goredis.NewScript(stepScript).Hash()
)

// scriptOf is the text of the script that Redis calls by hash.
func scriptOf(hash any) string {
	if hash == giveBackHash {
		return giveBackScript
	}
	return stepScript
}

// step is a call that one script carries out.
type step struct {
	keys int64
	hits []int64 // of each command, below 0 to give back
	send *goredis.IntSliceCmd
}

func newStep(commands []*command) *step {
	t := &step{keys: int64(len(commands)), hits: make([]int64, len(commands))}
	args := make([]any, 0, 3+4*len(commands))
	args = append(args, "evalsha", stepHash, &t.keys)
	for _, d := range commands {
		args = append(args, &d.key)
	}
	for i, d := range commands {
		t.hits[i] = d.hits
		if d.kind == giveBack {
			t.hits[i], d.most = -d.hits, math.MaxInt64 // never over
		}
		args = append(args, &t.hits[i], &d.most, &d.ttl)
	}
	t.send = goredis.NewIntSliceCmd(context.Background(), args...)
	return t
}
