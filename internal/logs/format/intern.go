package format

import "sync/atomic"

// interned keeps strings that come again and again (hosts, programs, users,
// names of fields), so that Fill need not allocate them. A slot holds the
// latest string of its hash; there is no lock, and what is lost is made anew.
type interned [2048]atomic.Pointer[string]

// known is shared by all formats; it never holds more than 2048 short strings.
var known interned

// internMax is the length in bytes up to which a string is kept.
const internMax = 64

// get returns b as a string.
func (t *interned) get(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if len(b) > internMax {
		return string(b)
	}
	h := uint32(2166136261) // FNV-1a
	for _, c := range b {
		h = (h ^ uint32(c)) * 16777619
	}
	slot := &t[(h^h>>15)%uint32(len(t))]
	if p := slot.Load(); p != nil && *p == string(b) {
		return *p
	}
	s := string(b)
	slot.Store(&s)
	return s
}
