package memory_test

import (
	"testing"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/store/memory"
	"github.com/weirproxy/weir/services/discovery/internal/store/storetest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func TestStore(t *testing.T) {
	storetest.RunForgetful(t, func(*testing.T) registry.Store { return memory.New() })
}
