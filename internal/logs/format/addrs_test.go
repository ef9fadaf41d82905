package format

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestAppendAddrs(t *testing.T) {
	for text, want := range map[string]string{
		"from 192.0.2.7 port 22":                       "192.0.2.7",
		"192.0.2.7":                                    "192.0.2.7",
		"192.0.2.7:80, 192.0.2.7/24;192.0.2.8.":        "192.0.2.7 192.0.2.8",
		"/10.250.19.102:54106 (10.0.0.1) <10.0.0.2>":   "10.250.19.102 10.0.0.1 10.0.0.2",
		"10.0.0.1-10.0.0.9 a=10.0.0.3 [10.0.0.4]:22":   "10.0.0.1 10.0.0.9 10.0.0.3 10.0.0.4",
		"256.0.0.1 1.2.3 1.2.3.4.5 v1.2.3.4 1.2.3.04":  "",
		"1.2.3.4.example.org 1.2.3.4a _1.2.3.4":        "",
		"bash-5.2.15.1 12:34:56 00:11:22:33:44:55":     "5.2.15.1",
		"2001:db8::1 and [2001:db8::2]:443":            "2001:db8::1 2001:db8::2",
		"fe80::1%eth0, 2001:db8::/32; ::1.":            "fe80::1 2001:db8:: ::1",
		"::ffff:192.0.2.7":                             "192.0.2.7",
		"64:ff9b::192.0.2.33 x":                        "192.0.2.33 64:ff9b::c000:221",
		"1:2:3:4:5:6:7:8 1:2:3:4:5:6:7:8:9 1:2:3:4::8": "1:2:3:4:5:6:7:8 1:2:3:4::8",
		"listening on [::]:22, std::vector, a::b::c":   "::",
		"00:11:22:33:44:55:66:77 MD5:aa:bb:cc:dd:ee":   "",
		"2001:db8::1: 11: Bye":                         "2001:db8::1",
		"12345::1 abc:: x::1 time 05:55:12.5":          "abc::",
		"":                                             "",
		".:.::":                                        "",
	} {
		var got []string
		for _, a := range AppendAddrs(nil, []byte(text)) {
			got = append(got, a.String())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %v, not %s", text, got, want)
		}
	}
	many := strings.Repeat("192.0.2.7 ", 100) + "10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6 10.0.0.7 10.0.0.8 10.0.0.9 10.0.1.1 10.0.1.2 10.0.1.3 10.0.1.4 10.0.1.5 10.0.1.6 10.0.1.7 10.0.1.8"
	if n := len(AppendAddrs(nil, []byte(many))); n != maxAddrs {
		t.Errorf("%d addresses", n)
	}
}

// FuzzAddrs holds what is found against net/netip: each address is in the text
// as netip reads it, and an IPv4 address between blanks is never missed.
func FuzzAddrs(f *testing.F) {
	f.Add("from 192.0.2.7 port 22 2001:db8::1 [::1]:80 ::ffff:1.2.3.4 1:2:3:4:5:6:7:8")
	f.Add("1:2:3:4:5:6:1.2.3.4 ::1.2.3.4 fe80::%eth0")
	token := regexp.MustCompile(`[0-9A-Fa-f:.]+`)
	f.Fuzz(func(t *testing.T, text string) {
		found := AppendAddrs(nil, []byte(text))
		var inText []netip.Addr
		for _, w := range token.FindAllString(text, -1) {
			for len(w) > 0 { // ports and full stops at the end do not belong to it
				if a, err := netip.ParseAddr(w); err == nil {
					inText = append(inText, a.Unmap())
				}
				// IPv4 can stand after a colon, or before one.
				for _, part := range strings.Split(w, ":") {
					if a, err := netip.ParseAddr(strings.TrimRight(part, ".")); err == nil {
						inText = append(inText, a)
					}
				}
				w = w[:len(w)-1]
			}
		}
		for i, a := range found {
			if !slices.Contains(inText, a) {
				t.Fatalf("%q: %s is not in it", text, a)
			}
			if slices.Contains(found[:i], a) {
				t.Fatalf("%q: %s twice", text, a)
			}
		}
		if len(found) == maxAddrs {
			return
		}
		for _, w := range strings.Split(text, " ") {
			if a, err := netip.ParseAddr(w); err == nil && a.Zone() == "" && (a.Is4() || a.Is6() && w != "::" && !euiLike(w)) && !slices.Contains(found, a.Unmap()) {
				t.Fatalf("%q: %s was not found", text, a)
			}
		}
	})
}

// euiLike reports whether w has the form of an EUI-64: eight pairs.
func euiLike(w string) bool { return len(w) == 23 && strings.Count(w, ":") == 7 }
