package httpfilter

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirproxy/weir/services/proxy/internal/route"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// RouteParser has routes configure the filters of those factories that are a
// RouteFactory.
func RouteParser(factories []Factory) route.FilterParser {
	kinds := map[protoreflect.FullName]RouteFactory{}
	for _, factory := range factories {
		if f, ok := factory.(RouteFactory); ok {
			kinds[f.RouteConfigType()] = f
		}
	}
	return func(config proto.Message, at strict.Path, report *strict.Report) (any, bool) {
		f := kinds[config.ProtoReflect().Descriptor().FullName()]
		if f == nil {
			return nil, false
		}
		return f.ParseRoute(config, at, report), true
	}
}
