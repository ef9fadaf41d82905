package sla

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
)

const policySample = `libfoo:
  Installed: 1.0-1
  Candidate: 1.0-1+deb12u1
  Version table:
     1.0-1+deb12u1 500
        500 http://security.example.org stable-security/main amd64 Packages
 *** 1.0-1 500
        500 file:/srv/repo s/main amd64 Packages
        100 /var/lib/dpkg/status
libfoo:i386:
  Installed: 1.0-1
  Candidate: (none)
  Package pin: 1.0-1
  Version table:
     1.0-2 500 (phased 10%)
         -1 file:/srv/repo s/main i386 Packages
`

func TestPolicyOfApt(t *testing.T) {
	var got []choice
	if err := parsePolicy(strings.NewReader(policySample), func(c choice) { got = append(got, c) }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].candidate != "1.0-1+deb12u1" || len(got[0].offers) != 2 || got[0].offers[0].from[0] != "http://security.example.org stable-security/main amd64 Packages" ||
		len(got[0].offers[1].from) != 2 || got[1].name != "libfoo:i386" || !got[1].offers[0].phased || got[1].candidate != "(none)" {
		t.Errorf("%+v", got)
	}
	for _, bad := range []string{
		"  Installed: x\n", "a b:\n", "a:\n  Version table:\n        500 x\n", "a:\n  Version table:\n     1 500\n        x y\n", "a:\n  Version table:\n     1 500\n        500\n",
		"a:\n  Version table:\n  what\n", strings.Repeat("x", maxLine+1) + ":\n", "\xff:\n", "a:\n  Version table:\n" + strings.Repeat("     1 500\n", maxOffers+1),
	} {
		err := parsePolicy(strings.NewReader(bad), func(choice) {})
		if e := (*ParseError)(nil); !errors.As(err, &e) || e.Line == 0 {
			t.Errorf("%.40q: %v", bad, err)
		}
	}
}

func FuzzPolicyOfApt(f *testing.F) {
	f.Add([]byte(policySample))
	f.Add([]byte("N: Unable to locate package x\n"))
	f.Add([]byte("a:\n  Version table:\n *** 1\n        -1 x y\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		err := parsePolicy(bytes.NewReader(b), func(c choice) {
			if !validName(c.name, false) {
				t.Errorf("name %q", c.name)
			}
			for _, o := range c.offers {
				if !validName(o.version, false) {
					t.Errorf("version %q", o.version)
				}
				CompareVersions(o.version, c.candidate)
			}
		})
		if e := (*ParseError)(nil); err != nil && !errors.As(err, &e) {
			t.Errorf("%v", err)
		}
	})
}

func FuzzListsOfPackages(f *testing.F) {
	f.Add([]byte("libfoo\tamd64\t1.0-1\tfoo\tinstall\tinstalled\nbar\tall\t1:2\tbar\thold\tinstalled\nold\tall\t\told\tdeinstall\tconfig-files\n"))
	f.Add([]byte("/var/lib/apt/lists/x_main_binary-amd64_Packages.lz4\tmain/binary-amd64/Packages\tbookworm-security\thttp://x/\tDebian-Security\t$(SUITE)\tbookworm-security\thttp://x bookworm-security/main amd64 Packages\n"))
	f.Add([]byte("Origin: Debian\nDate: Fri, 20 Nov 2026 00:12:41 UTC\nValid-Until: Fri, 27 Nov 2026 00:12:41 UTC\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := parseInstalled(b)
		if e := (*ParseError)(nil); err != nil && !errors.As(err, &e) {
			t.Errorf("%v", err)
		}
		for i := range list {
			if list[i].qualify("amd64"); strings.HasPrefix(list[i].name, "-") || strings.ContainsAny(list[i].name, " \n") {
				t.Errorf("%q would be an option", list[i].name)
			}
		}
		indexes, err := parseIndexes(b)
		if e := (*ParseError)(nil); err != nil && !errors.As(err, &e) {
			t.Errorf("%v", err)
		}
		for i := range indexes {
			indexes[i].security()
		}
		if r, err := parseRelease(b); err == nil && r.date.IsZero() {
			t.Error("a release without a date")
		}
	})
}

const goodRecord = `{"v":1,"source":"package","name":"platform","advisory":"CVE-1","severity":"high","first_known":"2026-11-22T12:00:00Z","last_seen":"2026-11-22T12:00:00Z","events":[],` +
	`"waiver":{"owner":"carol","reason":"r","until":"2026-12-22T12:00:00Z","severity":"high","requested":{"by":{"uid":0,"login_uid":1001},"at":"2026-11-22T12:00:00Z"},"approved":{"by":{"uid":0,"login_uid":1002},"at":"2026-11-22T12:00:00Z"}}`

func TestStoredForms(t *testing.T) {
	for record, readable := range map[string]bool{
		goodRecord + `}`:                 true,
		goodRecord + `,"later":{"x":1}}`: true,
		goodRecord:                       false,
		`{"v":2}`:                        false,
		`{}`:                             false,
		`{"v":"1"}`:                      false,
		strings.Replace(goodRecord, `"login_uid":1002`, `"login_uid":1001`, 1) + `}`: false, // approved by who asked
		strings.Replace(goodRecord, `"severity":"high"`, `"severity":"x"`, 1) + `}`:  false,
		strings.Replace(goodRecord, `CVE-1`, `CVE-2`, 1) + `}`:                       false,
		strings.Replace(goodRecord, `"owner":"carol"`, `"owner":""`, 1) + `}`:        false,
		goodRecord + `,"outcome":"late"}`:                                            false,
		goodRecord + `,"fixed_at":"2026-11-22T12:00:00Z"}`:                           false,
		goodRecord + `,"first_known":"0001-01-01T00:00:00Z"}`:                        false,
	} {
		_, err := decode([]byte(overdueID), []byte(record))
		if e := (*state.DecodeError)(nil); readable != (err == nil) || err != nil && (!errors.As(err, &e) || failure.KindOf(err) != failure.Untrustworthy) {
			t.Errorf("%s: %v", record, err)
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(goodRecord + "}"))
	f.Add([]byte(`{"v":1,"name":"apt","state":"complete","looked":"2026-11-22T12:00:00Z","problems":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		decodeSource([]byte("apt"), b)
		r, err := decode([]byte(overdueID), b)
		if err != nil {
			if e := (*state.DecodeError)(nil); !errors.As(err, &e) {
				t.Errorf("%v", err)
			}
			return
		}
		for _, at := range []time.Time{noon, {}, noon.Add(100 * day)} {
			r.State(DefaultPolicy(), at)
		}
		again, err := encode(r)
		if err != nil {
			return // a longer form than it may have
		}
		back, err := decode([]byte(overdueID), again)
		if err != nil {
			t.Fatalf("%s cannot be read again: %v", again, err)
		}
		if twice, err := encode(back); err != nil || !bytes.Equal(again, twice) {
			t.Errorf("%s became %s (%v)", again, twice, err)
		}
	})
}

func TestADamagedRecordIsSaidAndKept(t *testing.T) {
	store := state.New(t.TempDir(), state.Options{})
	observe(t, store, advisories(Advisory{Advisory: "CVE-1", Severity: High}), noon)
	update(t, store, func(tx *state.Tx) error {
		return tx.Bucket([]byte(bucketName)).Bucket([]byte("/")).Bucket([]byte(advisoryBucket)).Put([]byte(overdueID), []byte(`{"v":1,`))
	})
	err := try(t, store, func(tx *state.Tx) error { _, err := ledger.Observe(tx, advisories(), noon); return err })
	if failure.KindOf(err) != failure.Untrustworthy {
		t.Errorf("%v", err)
	}
}
