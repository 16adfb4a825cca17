package statsd

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// mogrifier turns the flat names that its pattern finds into a name and tags.
// $1 in these stands for the pattern's first group, $0 for all that it found.
type mogrifier struct {
	pattern *regexp.Regexp
	name    string
	tags    []tag
}

// readMogrifiers reads the rules of these names, "ONE,TWO", from the
// environment. The error joins all that is wrong; each part names the variable.
func readMogrifiers(names string, getenv func(string) string) ([]mogrifier, error) {
	var list []mogrifier
	var errs []error
	if names == "" {
		return nil, nil
	}
	for name := range strings.SplitSeq(names, ",") {
		m, err := readMogrifier("DOG_STATSD_MOGRIFIER_"+strings.ToUpper(strings.TrimSpace(name)), getenv)
		list, errs = append(list, m), append(errs, err)
	}
	return list, errors.Join(errs...)
}

func readMogrifier(prefix string, getenv func(string) string) (mogrifier, error) {
	m := mogrifier{name: getenv(prefix + "_NAME")}
	var errs []error
	if m.name == "" {
		errs = append(errs, fmt.Errorf("%s_NAME: not set, though USE_DOG_STATSD_MOGRIFIERS has this rule", prefix))
	}
	text := getenv(prefix + "_PATTERN")
	pattern, err := regexp.Compile(text)
	switch {
	case text == "":
		errs = append(errs, fmt.Errorf("%s_PATTERN: not set, though USE_DOG_STATSD_MOGRIFIERS has this rule", prefix))
	case err != nil:
		errs = append(errs, fmt.Errorf("%s_PATTERN=%s: %w", prefix, text, err))
	}
	m.pattern = pattern
	tags := getenv(prefix + "_TAGS")
	if tags == "" {
		return m, errors.Join(errs...)
	}
	for pair := range strings.SplitSeq(tags, ",") {
		key, value, _ := strings.Cut(pair, ":")
		if key == "" || value == "" {
			errs = append(errs, fmt.Errorf("%s_TAGS=%s: %q is not key:value", prefix, tags, pair))
		}
		m.tags = append(m.tags, tag{key, value})
	}
	slices.SortFunc(m.tags, func(a, b tag) int { return strings.Compare(a.key, b.key) })
	return m, errors.Join(errs...)
}

// mogrify applies the first rule that finds its pattern in flat. Without one
// the name stays as it is.
func mogrify(rules []mogrifier, flat string) (string, []tag) {
	for i := range rules {
		groups := rules[i].pattern.FindStringSubmatch(flat)
		if groups == nil {
			continue
		}
		tags := make([]tag, len(rules[i].tags))
		for j, t := range rules[i].tags {
			// A comma would begin the next tag; all else is fit for one already.
			tags[j] = tag{t.key, strings.ReplaceAll(expand(t.value, groups), ",", "_")}
		}
		return expand(rules[i].name, groups), tags
	}
	return flat, nil
}

// expand puts the groups in place of $0, $1, …; one that there is not stays as
// it is written.
func expand(template string, groups []string) string {
	var out strings.Builder
	for {
		before, after, found := strings.Cut(template, "$")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		digits := len(after) - len(strings.TrimLeft(after, "0123456789"))
		if n, err := strconv.Atoi(after[:digits]); err == nil && n < len(groups) {
			out.WriteString(groups[n])
		} else {
			out.WriteString("$" + after[:digits])
		}
		template = after[digits:]
	}
}
