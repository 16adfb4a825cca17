module github.com/weirproxy/weir/services/proxy

go 1.26.0

exclude (
	google.golang.org/genproto/googleapis/api v0.0.0-20261104224025-d1e00e9f33ab
	google.golang.org/genproto/googleapis/rpc v0.0.0-20261104224025-d1e00e9f33ab
)

require github.com/weirproxy/weir/internal v0.0.0

replace github.com/weirproxy/weir/internal => ../../internal
