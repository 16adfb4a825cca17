// Package web is the page that shows operators all services and hosts, live, the
// clients of xDS, what proxies report and which files are bad, and from which they
// drain and weigh hosts. The app serves its Routes beside those of
// rest/v2, which it asks for all that it shows: this package knows no host. The
// page needs nothing from elsewhere, and runs no script and no style but the
// files beside it, whatever hosts say of themselves.
package web

import (
	"embed"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
)

//go:embed page.html page.css page.js page/*.js
var files embed.FS

// policy is what the page may do: what its own files say, and calls to where it
// comes from. No text becomes markup, and no other page shows this one.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// types are those of the files, by their extension.
var types = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
}

// names are the files beside page.html. Each is served at its own path.
var names = []string{
	"page.css", "page.js",
	"page/calls.js", "page/clients.js", "page/dialog.js", "page/files.js", "page/loads.js",
	"page/status.js", "page/stream.js", "page/table.js", "page/text.js",
}

// Has reports whether something of the page is at a path. It holds no secret:
// who may not read is told so by the calls that it makes.
func Has(path string) bool {
	return path == "/" || path == "/page" || slices.Contains(names, strings.TrimPrefix(path, "/"))
}

// Routes are the page, at / and /page, and the files beside it.
func Routes() []call.Route {
	routes := []call.Route{route("/{$}", "page.html"), route("/page", "page.html")}
	for _, name := range names {
		routes = append(routes, route("/"+name, name))
	}
	return routes
}

func route(path, name string) call.Route {
	return call.Route{Path: path, Methods: map[string]call.Handler{"GET": serve(name)}}
}

// serve answers with a file. A browser asks each time whether it has changed:
// page, style and script belong together.
func serve(name string) call.Handler {
	content, err := fs.ReadFile(files, name)
	if err != nil {
		panic(err) // the compiler has put it in
	}
	hash := fnv.New64a()
	hash.Write(content)
	tag := []string{fmt.Sprintf(`"%016x"`, hash.Sum64())}
	return func(w http.ResponseWriter, r *http.Request) (int, error) {
		header := w.Header()
		header.Set("Content-Type", types[path.Ext(name)])
		header.Set("Content-Security-Policy", policy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Cache-Control", "no-cache")
		if httpjson.Unmodified(w, r, tag) {
			return http.StatusNotModified, nil
		}
		header.Set("Content-Length", strconv.Itoa(len(content)))
		_, _ = w.Write(content) // a failed write means that the caller has gone
		return http.StatusOK, nil
	}
}
