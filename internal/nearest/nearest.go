// Package nearest finds the name that was probably meant by one that is not
// known. Readers of settings and of files call it for what their errors suggest;
// whether the nearest is near enough to be named is theirs to say.
package nearest

// Of returns the one of names that takes the fewest edits to make of what was
// written, the first of several, and how many those are: insertions, deletions and
// replacements of one byte (Levenshtein). Without names it returns "", and more
// edits than anybody would take for near.
func Of(written string, names []string) (name string, edits int) {
	edits = 1 << 30
	for _, n := range names {
		if d := distance(written, n); d < edits {
			name, edits = n, d
		}
	}
	return name, edits
}

func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
