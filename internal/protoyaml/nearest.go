package protoyaml

// nearest is the name most like what was written, or "" if none is near: at
// most one edit in three letters.
func nearest(written string, names []string) string {
	best, least := "", max(1, len(written)/3)+1
	if len(written) > 100 {
		return ""
	}
	for _, name := range names {
		if d := editDistance(written, name); d < least {
			best, least = name, d
		}
	}
	return best
}

// editDistance counts the insertions, deletions and changes of one byte that
// turn a into b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
