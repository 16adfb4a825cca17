package redis

import (
	"context"

	goredis "github.com/redis/go-redis/v9"
)

// again sends once more those commands whose answer says that they were not
// carried out, and what to do about it: a script has to be loaded, or another
// server of the Cluster has the key. The outcome takes the place of the first.
// A server that has no slot yet, and is given its first, is not known: until it
// has that, those of its keys that are there already stay errors.
func (x *exchange) again() {
	type pair struct{ old, renewed goredis.Cmder }
	var pairs []pair
	servers := map[string]*goredis.Client{}
	pipes := map[*goredis.Client]goredis.Pipeliner{}
	readOnly := false
	for _, old := range x.send {
		err := old.Err()
		if err == nil || !answered(err) {
			continue
		}
		readOnly = readOnly || goredis.IsReadOnlyError(err)
		to, ask := x.shard.client, false
		switch nodes := x.shard.store.nodes; {
		case nodes != nil && isElsewhere(err):
			var address string
			if address, ask = goredis.IsAskError(err); !ask {
				address, _ = goredis.IsMovedError(err)
			}
			var known bool
			if to, known = servers[address]; !known {
				to = nodes.at(address)
				servers[address] = to
			}
			if to == nil {
				continue
			}
		case !goredis.HasErrorPrefix(err, "NOSCRIPT"):
			continue
		}
		pipe := pipes[to]
		if pipe == nil {
			pipe = to.Pipeline()
			pipes[to] = pipe
		}
		if ask {
			pipe.Do(context.Background(), "asking")
		}
		renewed := copyOf(old)
		_ = pipe.Process(context.Background(), renewed)
		pairs = append(pairs, pair{old, renewed})
	}
	for _, pipe := range pipes {
		_ = exec(pipe)
	}
	if readOnly && !goredis.IsReadOnlyError(x.send[0].Err()) {
		// The driver leaves a connection to a server that became a replica, and
		// asks anew where the master is, if the first command tells of it only.
		_ = x.shard.ping(context.Background())
	}
	for _, p := range pairs {
		p.old.SetErr(p.renewed.Err())
		switch old := p.old.(type) {
		case *goredis.IntCmd:
			old.SetVal(p.renewed.(*goredis.IntCmd).Val())
		case *goredis.IntSliceCmd:
			old.SetVal(p.renewed.(*goredis.IntSliceCmd).Val())
		}
	}
}

// isElsewhere says whether err tells that another server has the key.
func isElsewhere(err error) bool {
	_, moved := goredis.IsMovedError(err)
	_, ask := goredis.IsAskError(err)
	return moved || ask
}

// copyOf is a command like old, but with the text of its script, if any.
func copyOf(old goredis.Cmder) goredis.Cmder {
	args := append([]any(nil), old.Args()...)
	if args[0] == "evalsha" {
		args[0], args[1] = "eval", scriptOf(args[1])
	}
	if _, ok := old.(*goredis.IntSliceCmd); ok {
		return goredis.NewIntSliceCmd(context.Background(), args...)
	}
	return goredis.NewIntCmd(context.Background(), args...)
}
