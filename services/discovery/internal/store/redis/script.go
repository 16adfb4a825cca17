package redis

import (
	"crypto/sha1"
	"encoding/hex"
	"strconv"
)

// script is one that Redis carries out, and what Redis calls it by.
type script struct{ text, hash string }

// newScript is the script of that body.
func newScript(body string) *script {
	text := preamble + body
	sum := sha1.Sum([]byte(text))
	return &script{text, hex.EncodeToString(sum[:])}
}

// preamble is what all scripts begin with. micros is Redis' time in µs, which is how
// they tell it, now the same in ms, in which it is kept. xor is the exclusive or of two
// numbers of 16 hex digits; what is none is 0, by the same rule as that of sum. open
// returns generation and digest of meta, which it makes, if it is not there, with a
// generation that the caller drew, and so the generation alone; it returns nil if what
// is there has another schema. log adds an entry and returns its id. close notes in meta
// what became of it, where more is how many hosts and settings came, less those that
// went.
const preamble = `
local time = redis.call('TIME')
local micros = time[1] * 1000000 + time[2]
local now = math.floor(micros / 1000)
local function number(text, from, to)
  local digits = string.match(string.sub(text, from, to), '^%x+$') -- tonumber takes signs and spaces too
  return digits and tonumber(digits, 16) or 0
end
local function half(a, b, from, to) return bit.tohex(bit.bxor(number(a, from, to), number(b, from, to))) end
local zero = '0000000000000000'
local function xor(a, b) return half(a, b, 1, 8) .. half(a, b, 9, 16) end
local function open(meta, schema, fresh)
  local have = redis.call('HMGET', meta, 'schema', 'gen', 'digest')
  if not have[1] then
    redis.call('HSET', meta, 'schema', schema, 'gen', fresh, 'digest', zero, 'last', '0-0')
    return fresh, zero
  end
  if have[1] ~= schema then return end
  if not have[2] then redis.call('HSET', meta, 'gen', fresh) end
  return have[2] or fresh, have[3] or zero
end
local function close(meta, digest, last, more)
  redis.call('HSET', meta, 'digest', digest, 'last', last)
  local count = tonumber(redis.call('HGET', meta, 'count') or '0')
  if count and more ~= 0 then redis.call('HSET', meta, 'count', string.format('%.0f', count + more)) end
end
local function foreign() return redis.error_reply('SCHEMA of another version') end
local function log(key, most, writer, gen, before, after, kind, member, value, lease, event, at)
  return redis.call('XADD', key, 'MAXLEN', '~', most, '*', 'w', writer, 'g', gen, 'b', before, 'd', after,
    'k', kind, 'm', member, 'v', value, 'l', lease, 'e', event, 'a', at)
end
`

// The kinds of changes in the log, and what appendScript is told to do.
const (
	hostPut      = "p"
	hostRemoved  = "r"
	settingPut   = "s"
	settingEnded = "e"
)

// appendScript carries out changes, each of which ARGV tells in eight words after
// the first five: its kind, the member, the value, the lease, the event, and for a host
// two times in µs of Redis' clock, none later than now: when its last check-in was, or
// when it went, and when it registered; and for one that is put how the value begins that
// it takes the place of, empty for none. One that is removed has in the place of a value
// whether its lease is buried ("1"). tomb has until when each buried lease is remembered,
// which tells when it last went; one that registered again is buried no more, and has
// there a + before it, until when that is remembered, which tells when that was. What was
// before either is settled. What is so already is not logged again. It returns how many
// changes it refused: hosts put with a buried lease that did not register since, and
// those removed that did, or have another lease; and of each host in whose place
// another value is than the one told, the place of the change and that value: of that it
// notes the beat alone.
var appendScript = newScript(`
local rec, beat, logKey, ovr, meta, tomb = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local writer, most, kept = ARGV[3], ARGV[4], tonumber(ARGV[5])
local gen, digest = open(meta, ARGV[1], ARGV[2])
if not gen then return foreign() end
local last, more = nil, 0
local function change(hash, kind, member, value, lease, event, at, head)
  local old = redis.call('HGET', hash, member)
  if old == value or not old and value == '' then return end
  if head and old and string.sub(old, 1, ` + strconv.Itoa(valueHead) + `) ~= head then return old end
  local before = digest
  if old then digest = xor(digest, string.sub(old, 1, 16)) end
  if value ~= '' then digest = xor(digest, string.sub(value, 1, 16)) end
  -- First the log: what it does not take must not be taken for told when it comes again.
  last = log(logKey, most, writer, gen, before, digest, kind, member, value, lease, event, at)
  if value == '' then
    more = more - redis.call('HDEL', hash, member)
  else
    more = more + redis.call('HSET', hash, member, value)
  end
end
redis.call('ZREMRANGEBYSCORE', tomb, '-inf', now)
local function past(i) return math.min(micros, ARGV[i]) / 1000 end
local refused, others = 0, {}
for i = 6, #ARGV, 8 do
  local kind, member, value, lease, event = ARGV[i], ARGV[i+1], ARGV[i+2], ARGV[i+3], ARGV[i+4]
  if kind == '` + hostPut + `' then
    local at, expires, buried = math.floor(past(i + 5)), past(i + 6) + kept, redis.call('ZSCORE', tomb, lease)
    if buried and expires < tonumber(buried) then
      refused = refused + 1
    else
      local other = change(rec, kind, member, value, lease, event, at, ARGV[i+7])
      redis.call('ZADD', beat, 'GT', at, member)
      if other then
        others[#others+1], others[#others+2] = string.format('%d', (i - 6) / 8), other
      elseif buried then
        redis.call('ZREM', tomb, lease)
        redis.call('ZADD', tomb, expires, '+' .. lease)
      else
        redis.call('ZADD', tomb, 'XX', 'GT', expires, '+' .. lease)
      end
    end
  elseif kind == '` + hostRemoved + `' then
    local went, old = past(i + 5), redis.call('HGET', rec, member)
    local settled = redis.call('ZSCORE', tomb, lease) or redis.call('ZSCORE', tomb, '+' .. lease)
    local isSettled = settled and went + kept <= tonumber(settled)
    if old and (isSettled or lease ~= zero and string.sub(old, 17, 32) ~= lease) then
      refused = refused + 1
    else
      redis.call('ZREM', beat, member)
      change(rec, kind, member, '', lease, event, string.format('%.3f', went))
    end
    if value == '1' and not isSettled then
      redis.call('ZADD', tomb, went + kept, lease)
      redis.call('ZREM', tomb, '+' .. lease)
    end
  else
    change(ovr, kind, member, value, lease, event, 0)
  end
end
if last then close(meta, digest, last, more) end
return {refused, others}
`)

// expireScript takes out dead hosts, each of which ARGV tells in three words
// after the first five: the member, how many ms ago the last beat was that is
// known of it, and the event. It does so only for the holder of the sweep lease,
// which is whoever asks first; others get an empty answer. A lease for longer than
// is given is one from before Redis' clock was set back. Else it answers with
// the time and, for each host, an empty text if it is out, or its later beat.
var expireScript = newScript(`
local rec, beat, logKey, meta, sweep = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local writer, most = ARGV[3], ARGV[4]
local holder = redis.call('GET', sweep)
if holder and holder ~= writer and redis.call('PTTL', sweep) <= tonumber(ARGV[5]) then return {} end
local gen, digest = open(meta, ARGV[1], ARGV[2])
if not gen then return foreign() end
local last, more = nil, 0
redis.call('SET', sweep, writer, 'PX', ARGV[5])
local answer = {micros}
for i = 6, #ARGV, 3 do
  local member = ARGV[i]
  local old, score = redis.call('HGET', rec, member), redis.call('ZSCORE', beat, member)
  if score and tonumber(score) > now - ARGV[i+1] then
    answer[#answer+1] = score
  else
    redis.call('ZREM', beat, member)
    if old then
      local before = digest
      digest = xor(digest, string.sub(old, 1, 16))
      last = log(logKey, most, writer, gen, before, digest, '` + hostRemoved + `', member, '', string.sub(old, 17, 32), ARGV[i+2], 0)
      more = more - redis.call('HDEL', rec, member)
    end
    answer[#answer+1] = ''
  end
end
if last then close(meta, digest, last, more) end
return answer
`)

// wholeScript returns all of a partition in one step: the time, the fields of
// meta, the first and the last entry of the log, whether that of ARGV[1] is there, the
// contents of the hashes and the beats, the events of the last ARGV[2] entries, the
// latest first, tomb as it is, and the hosts that were put by entries after ARGV[1] if it
// is one.
var wholeScript = newScript(`
local rec, beat, logKey, ovr, meta, tomb = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local have = redis.call('HMGET', meta, 'schema', 'gen', 'digest', 'last')
local first = redis.call('XRANGE', logKey, '-', '+', 'COUNT', 1)[1]
local latest = redis.call('XREVRANGE', logKey, '+', '-', 'COUNT', 1)[1]
local events = {}
if tonumber(ARGV[2]) > 0 then
  for _, entry in ipairs(redis.call('XREVRANGE', logKey, '+', '-', 'COUNT', ARGV[2])) do
    for i = 1, #entry[2], 2 do
      if entry[2][i] == 'e' and entry[2][i+1] ~= '' then events[#events+1] = entry[2][i+1] end
    end
  end
end
local put = {}
if ARGV[1] ~= '0-0' then
  for _, entry in ipairs(redis.call('XRANGE', logKey, '(' .. ARGV[1], '+')) do
    local kind, member
    for i = 1, #entry[2], 2 do
      if entry[2][i] == 'k' then kind = entry[2][i+1] elseif entry[2][i] == 'm' then member = entry[2][i+1] end
    end
    if kind == '` + hostPut + `' and member then put[#put+1] = member end
  end
end
return {
  micros, have[1] or '', have[2] or '', have[3] or zero, have[4] or '0-0',
  first and first[1] or '', latest and latest[1] or '', #redis.call('XRANGE', logKey, ARGV[1], ARGV[1]),
  redis.call('HGETALL', rec), redis.call('HGETALL', ovr), redis.call('ZRANGE', beat, 0, -1, 'WITHSCORES'), events,
  redis.call('ZRANGEBYSCORE', tomb, string.format('(%.0f', now), '+inf', 'WITHSCORES'), put,
}
`)

// lookScript returns the time and the fields of meta. Before, it computes the digest
// anew where ARGV[2] says so ("1"), or where there are more or less hosts and settings
// than are counted, which costs next to nothing to see; a digest that differs tells of
// data that went without a script, for which it takes ARGV[1] as another generation.
// Earlier versions do not count.
var lookScript = newScript(`
local rec, ovr, meta = KEYS[1], KEYS[2], KEYS[3]
local have = redis.call('HMGET', meta, 'gen', 'digest', 'last', 'count')
local count = string.format('%.0f', redis.call('HLEN', rec) + redis.call('HLEN', ovr))
if have[1] and (ARGV[2] == '1' or count ~= have[4]) then
  local a, b = 0, 0
  for _, hash in ipairs({rec, ovr}) do
    for _, value in ipairs(redis.call('HVALS', hash)) do
      a, b = bit.bxor(a, number(value, 1, 8)), bit.bxor(b, number(value, 9, 16))
    end
  end
  local digest = bit.tohex(a) .. bit.tohex(b)
  if digest ~= have[2] then
    redis.call('HSET', meta, 'gen', ARGV[1], 'digest', digest)
    have[1], have[2] = ARGV[1], digest
  end
  if count ~= have[4] then redis.call('HSET', meta, 'count', count) end
end
return {micros, have[1] or '', have[2] or zero, have[3] or '0-0'}
`)

// clockScript returns the time, whatever the keys of the partition hold.
var clockScript = newScript(`
return micros
`)

// presenceScript notes that the replica of ARGV[1] runs, by the name of ARGV[2], and
// returns the time and of each other one the writer, when it was last noted, and
// its name. It forgets those that were not noted for ARGV[3] ms, and, after ARGV[4]
// ms, those of the same name that were not since this one began: this is what became
// of them.
var presenceScript = newScript(`
local replicas, writer, name = KEYS[1], ARGV[1], ARGV[2]
local at = string.format('%.0f', now)
local began = string.match(redis.call('HGET', replicas, writer) or at, '^%d+') or at
redis.call('HSET', replicas, writer, began .. ' ' .. at .. ' ' .. name)
local answer, all = {micros}, redis.call('HGETALL', replicas)
for i = 1, #all, 2 do
  if all[i] ~= writer then
    local seen, other = string.match(all[i+1], '^%d+ (%d+) (.*)$')
    local silent = now - (tonumber(seen) or 0)
    local replaced = other == name and silent >= tonumber(ARGV[4]) and tonumber(seen) < tonumber(began)
    if not seen or silent > tonumber(ARGV[3]) or replaced then
      redis.call('HDEL', replicas, all[i])
    else
      answer[#answer+1], answer[#answer+2], answer[#answer+3] = all[i], seen, other
    end
  end
end
return answer
`)

func scripts() []*script {
	return []*script{appendScript, expireScript, wholeScript, lookScript, clockScript, presenceScript}
}
