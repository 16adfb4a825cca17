// Package web is the page that shows operators the listeners, clusters and routes of
// one running proxy with their load. app mounts it on the admin listener. Its script
// asks for page.json beside it, which is adminapi's; it needs nothing from elsewhere
// and changes nothing. Other pages of that listener begin with the same Head.
package web

import (
	"bytes"
	"embed"
	"html/template"
	"net/http"
)

//go:embed head.html page.html page.css page.js
var files embed.FS

// policy is what the page may do: what its own files say, and calls to where it
// comes from. No text becomes markup, and no other page shows this one.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Head is the template "head.html", the head of a page beside /page: the style that
// they share, and the title, which it is executed with. The caller may add to it.
func Head() *template.Template { return template.Must(template.ParseFS(files, "head.html")) }

// page is /page.
func page() []byte {
	var text bytes.Buffer
	whole := template.Must(Head().ParseFS(files, "page.html"))
	if err := whole.ExecuteTemplate(&text, "page.html", nil); err != nil {
		panic(err) // it holds nothing that can fail
	}
	return text.Bytes()
}

// file is a file beside the page.
func file(name string) []byte {
	content, err := files.ReadFile(name)
	if err != nil {
		panic(err) // the compiler has put it in
	}
	return content
}

// Server is where the page is mounted: admin.Server.
type Server interface {
	Handle(pattern, help string, h http.Handler)
}

// Mount adds /page and the files beside it to a server that does not serve yet.
func Mount(server Server) {
	for _, f := range []struct {
		path, kind, help string
		content          []byte
	}{
		{"/page", "text/html", "listeners, clusters and routes with their load, live, for people", page()},
		{"/page.css", "text/css", "its style", file("page.css")},
		{"/page.js", "text/javascript", "its script", file("page.js")},
	} {
		server.Handle("GET "+f.path, f.help, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			h := w.Header()
			h.Set("Content-Type", f.kind+"; charset=utf-8")
			h.Set("Content-Security-Policy", policy)
			h.Set("X-Content-Type-Options", "nosniff")
			h.Set("Referrer-Policy", "no-referrer")
			h.Set("Cache-Control", "no-cache")
			_, _ = w.Write(f.content) // a failed write means that the reader has gone
		}))
	}
}
