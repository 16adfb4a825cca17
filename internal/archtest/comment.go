package archtest

import (
	"fmt"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
)

// commentFault says what is wrong with a package's comment, or nothing.
func commentFault(p pkg) string {
	var comments []string
	for _, name := range p.GoFiles {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			return fmt.Sprintf("read package comment: %v", err)
		}
		if file.Doc != nil {
			comments = append(comments, file.Doc.Text())
		}
	}
	switch {
	case len(comments) == 0:
		return "no package comment"
	case len(comments) > 1:
		return fmt.Sprintf("%d package comments, want one", len(comments))
	case sentences(comments[0]) < 2:
		return "the package comment has one sentence; say also what calls the package and what it never does"
	}
	return ""
}

// sentences counts the sentences of a text. A full stop ends one if the text
// ends there or goes on with a capital, so that "e.g. this" does not.
func sentences(text string) int {
	text = strings.Join(strings.Fields(text), " ")
	return len(regexp.MustCompile(`[.!?][)"”]*( [^a-z0-9]|$)`).FindAllString(text, -1))
}
