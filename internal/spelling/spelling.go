// Package spelling finds the word that someone probably meant: a command, a
// flag, a configuration key. Distances are those of optimal string alignment
// (insert, delete, replace, swap two neighbours), counted in bytes.
package spelling

import "strings"

// Nearest returns the word that is closest to what was typed, or "" when none
// is close enough to be worth suggesting. Case does not count, and a word that
// begins with what was typed is always close enough.
func Nearest(typed string, words []string) string {
	if typed == "" || len(typed) > 64 {
		return ""
	}
	typed = strings.ToLower(typed)
	best, bestDistance := "", 1+max(1, len(typed)/3)
	for _, w := range words {
		d := Distance(typed, strings.ToLower(w))
		if len(typed) >= 3 && d > 0 && strings.HasPrefix(strings.ToLower(w), typed) {
			d = 1
		}
		if d < bestDistance {
			best, bestDistance = w, d
		}
	}
	return best
}

// Distance returns how many single edits turn a into b.
func Distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
