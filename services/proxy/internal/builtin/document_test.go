package builtin

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	upstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/cluster"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// page is the documentation of the supported fields: a section for each message
// with its fields, their types, and where the message may stand.
type page struct {
	messages map[protoreflect.FullName]map[protoreflect.Name]bool
	// uses are the fields that a message is the type of.
	uses map[protoreflect.FullName][]string
}

const introduction = `# Supported fields

Every field of Envoy's v3 API that the proxy carries out, in files and in what
comes by xDS, by the message that has it. Everything else is refused, with its
path. So is a field that is "not for a cluster" in the settings of HTTP of a
cluster, and one "not for a connection manager" in those of
http_connection_manager. ` + "`make generate`" + ` writes this page from the code.
`

func newPage(t *testing.T) *page {
	p := &page{map[protoreflect.FullName]map[protoreflect.Name]bool{}, map[protoreflect.FullName][]string{}}
	for _, part := range fields() {
		for message, names := range part {
			if p.messages[message] == nil {
				p.messages[message] = map[protoreflect.Name]bool{}
			}
			for _, name := range names {
				p.messages[message][name] = true
			}
		}
	}
	for message, names := range p.messages {
		for name := range names {
			if inner := valueOf(field(t, message, name)).Message(); inner != nil {
				p.uses[inner.FullName()] = append(p.uses[inner.FullName()], fmt.Sprintf("`%s.%s`", short(message), name))
			}
		}
	}
	return p
}

func field(t *testing.T, message protoreflect.FullName, name protoreflect.Name) protoreflect.FieldDescriptor {
	found, err := protoregistry.GlobalTypes.FindMessageByName(message)
	require.NoError(t, err)
	return found.Descriptor().Fields().ByName(name)
}

// valueOf is a field, or of a map the field of its values.
func valueOf(fd protoreflect.FieldDescriptor) protoreflect.FieldDescriptor {
	if fd.IsMap() {
		return fd.MapValue()
	}
	return fd
}

// short is the name of a message without its package: "Cluster.EdsClusterConfig".
func short(name protoreflect.FullName) string {
	parts := strings.Split(string(name), ".")
	i := slices.IndexFunc(parts, func(part string) bool { return part[0] >= 'A' && part[0] <= 'Z' })
	return strings.Join(parts[i:], ".")
}

// anchor is where a heading is found in the page.
func anchor(name protoreflect.FullName) string {
	return "#" + strings.ToLower(strings.ReplaceAll(string(name), ".", ""))
}

func (p *page) typeOf(fd protoreflect.FieldDescriptor) string {
	value := valueOf(fd)
	text := value.Kind().String()
	switch {
	case value.Message() != nil && p.messages[value.Message().FullName()] != nil:
		text = fmt.Sprintf("[%s](%s)", short(value.Message().FullName()), anchor(value.Message().FullName()))
	case value.Message() != nil:
		text = short(value.Message().FullName())
	case value.Enum() != nil:
		text = short(value.Enum().FullName())
	}
	switch {
	case fd.IsMap():
		return "map of " + text
	case fd.IsList():
		return "list of " + text
	default:
		return text
	}
}

// refusal is where a field of a message that may stand in several places is refused,
// in words: ", not for a cluster". It asks those who read them: the settings of HTTP
// are the only such messages.
func refusal(t *testing.T, fd protoreflect.FieldDescriptor) string {
	found, err := protoregistry.GlobalTypes.FindMessageByName(fd.ContainingMessage().FullName())
	require.NoError(t, err)
	options := found.New()
	manager, upstream := &hcmv3.HttpConnectionManager{StatPrefix: "a"}, &upstreamv3.HttpProtocolOptions{}
	version := &upstreamv3.HttpProtocolOptions_UseDownstreamHttpConfig{}
	upstream.UpstreamProtocolOptions = &upstreamv3.HttpProtocolOptions_UseDownstreamProtocolConfig{UseDownstreamProtocolConfig: version}
	switch o := options.Interface().(type) {
	case *corev3.HttpProtocolOptions:
		manager.CommonHttpProtocolOptions, upstream.CommonHttpProtocolOptions = o, o
	case *corev3.Http1ProtocolOptions:
		manager.HttpProtocolOptions, version.HttpProtocolOptions = o, o
	case *corev3.Http2ProtocolOptions:
		manager.Http2ProtocolOptions, version.Http2ProtocolOptions = o, o
	default:
		return ""
	}
	switch {
	case fd.Message() != nil && fd.Message().Fields().ByName("value") != nil:
		wrapper := options.Mutable(fd).Message()
		value := wrapper.Descriptor().Fields().ByName("value")
		wrapper.Set(value, one(value))
	case fd.Message() != nil:
		options.Mutable(fd)
	default:
		options.Set(fd, one(fd))
	}
	packed, err := anypb.New(upstream)
	require.NoError(t, err)
	report := &strict.Report{}
	cluster.Parse(&clusterv3.Cluster{
		Name: "a", TypedExtensionProtocolOptions: map[string]*anypb.Any{string(upstream.ProtoReflect().Descriptor().FullName()): packed},
	}, "", LoadBalancers(), report)
	NetworkFilters(Dependencies{Stats: stats.NewRegistry()})[0].Parse(manager, "", report)
	where := ""
	for _, place := range []string{"a cluster", "a connection manager"} {
		if regexp.MustCompile(`\.` + string(fd.Name()) + ": .* for " + place + "(:|\n|$)").MatchString(fmt.Sprint(report.Err())) {
			where += ", not for " + place
		}
	}
	return where
}

// one is a value of a field that is not its default.
func one(fd protoreflect.FieldDescriptor) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	case protoreflect.StringKind:
		return protoreflect.ValueOfString("a")
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(1)
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(1)
	default:
		return protoreflect.ValueOfUint32(1)
	}
}

func TestThePageOfSupportedFieldsIsAsGenerated(t *testing.T) {
	p := newPage(t)
	var b strings.Builder
	b.WriteString(introduction)
	for _, message := range slices.Sorted(maps.Keys(p.messages)) {
		fmt.Fprintf(&b, "\n## %s\n\n", message)
		if uses := p.uses[message]; len(uses) > 0 {
			slices.Sort(uses)
			fmt.Fprintf(&b, "In %s.\n\n", strings.Join(uses, ", "))
		} else if strings.HasPrefix(string(message), "envoy.extensions.") {
			b.WriteString("In a typed_config.\n\n")
		}
		if len(p.messages[message]) == 0 {
			b.WriteString("It has no fields that can be set.\n")
			continue
		}
		b.WriteString("| field | type |\n| --- | --- |\n")
		for _, name := range slices.Sorted(maps.Keys(p.messages[message])) {
			fd := field(t, message, name)
			fmt.Fprintf(&b, "| `%s` | %s%s |\n", name, p.typeOf(fd), refusal(t, fd))
		}
	}
	servicetest.Golden(t, "../../docs/supported-fields.md", []byte(b.String()))
}
