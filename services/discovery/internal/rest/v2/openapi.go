package v2

import (
	_ "embed"
	"net/http"

	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
)

//go:embed openapi.yaml
var openAPI []byte

// openAPI answers with the file that says what this face is.
func (f *face) openAPI(w http.ResponseWriter, r *http.Request) (int, error) {
	if err := call.ReadQuery(r).End(); err != nil {
		return 0, err
	}
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write(openAPI) // a failed write means that the caller has gone
	return http.StatusOK, nil
}
