package router_test

import (
	"testing"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/filtertest"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/router"
)

// What the router does on sockets is tested where a whole exchange can be:
// networkfilter/hcm/hcm_test.go.

func TestMain(m *testing.M) { servicetest.Main(m) }

func TestReadme(t *testing.T) { filtertest.Readme(t, router.Factory{}) }
