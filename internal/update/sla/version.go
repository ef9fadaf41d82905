package sla

import (
	"cmp"
	"strings"
)

// CompareVersions orders versions of Debian packages as dpkg does: -1, 0 or 1.
// The rules are those of deb-version(7): epoch, upstream version and revision,
// and of each in turn a part without digits, in which ~ comes before everything,
// even the end, and letters before other characters, and a number.
func CompareVersions(a, b string) int {
	aEpoch, a := cutEpoch(a)
	bEpoch, b := cutEpoch(b)
	if c := compareNumbers(aEpoch, bEpoch); c != 0 {
		return c
	}
	aUpstream, aRevision := cutRevision(a)
	bUpstream, bRevision := cutRevision(b)
	return cmp.Or(comparePart(aUpstream, bUpstream), comparePart(aRevision, bRevision))
}

func cutEpoch(v string) (epoch, rest string) {
	if before, after, ok := strings.Cut(v, ":"); ok {
		return before, after
	}
	return "", v
}

func cutRevision(v string) (upstream, revision string) {
	if i := strings.LastIndexByte(v, '-'); i >= 0 {
		return v[:i], v[i+1:]
	}
	return v, ""
}

func comparePart(a, b string) int {
	for a != "" || b != "" {
		i, j := nonDigits(a), nonDigits(b)
		for k := range max(i, j) {
			if c := cmp.Compare(order(a[:i], k), order(b[:j], k)); c != 0 {
				return c
			}
		}
		a, b = a[i:], b[j:]
		i, j = digits(a), digits(b)
		if c := compareNumbers(a[:i], b[:j]); c != 0 {
			return c
		}
		a, b = a[i:], b[j:]
	}
	return 0
}

// compareNumbers compares digits of any length.
func compareNumbers(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

// order is the weight of character k of a part without digits.
func order(s string, k int) int {
	switch {
	case k >= len(s):
		return 0
	case s[k] == '~':
		return -1
	case 'a' <= s[k] && s[k] <= 'z' || 'A' <= s[k] && s[k] <= 'Z':
		return int(s[k])
	}
	return int(s[k]) + 256
}

func digits(s string) int {
	n := 0
	for n < len(s) && '0' <= s[n] && s[n] <= '9' {
		n++
	}
	return n
}

func nonDigits(s string) int {
	n := 0
	for n < len(s) && (s[n] < '0' || s[n] > '9') {
		n++
	}
	return n
}
