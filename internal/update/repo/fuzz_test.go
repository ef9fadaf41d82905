package repo

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"
)

// FuzzCustom reads custom metadata. What is accepted is within the limits, and
// is the same after it was written again.
func FuzzCustom(f *testing.F) {
	const good = `{"mobileops":{"name":"platform","version":"2.4.1","sequence":17,"channel":"stable","expires":"2027-01-01T00:00:00Z",` +
		`"severity":"critical","published":"2026-11-01T00:00:00Z","advisories":["CVE-2026-1234"],"rollout":{"basis_points":1000,"salt":"platform-2.4.1"}}}`
	for _, seed := range []string{
		good, "", "{}", "null", "[]", `{"mobileops":null}`, `{"mobileops":[]}`, `{"mobileops":{}}`, `{"somebody":{"else":1}}`,
		strings.Replace(good, "17", "0", 1), strings.Replace(good, "17", "9223372036854775807", 1), strings.Replace(good, "17", "9223372036854775808", 1),
		strings.Replace(good, "17", "17.5", 1), strings.Replace(good, "1000", "10001", 1), strings.Replace(good, "1000", "-1", 1),
		strings.Replace(good, "critical", "terrible", 1), strings.Replace(good, "platform", "../etc", 1), strings.Replace(good, "2027-01-01T00:00:00Z", "2027-01-01T00:00:00.5Z", 1),
		strings.Replace(good, "2027-01-01T00:00:00Z", "2027-01-01T00:00:00+02:00", 1), strings.Replace(good, "CVE-2026-1234", "CVE 1\u202e", 1),
	} {
		f.Add([]byte(seed), "platform-2.4.1.tar.zst")
	}
	f.Add([]byte(good), "../../etc/passwd")
	f.Add([]byte(good), "a//b")
	f.Fuzz(func(t *testing.T, raw []byte, path string) {
		c, found, err := parseCustom(raw)
		if err != nil || !found {
			if !found && err != nil {
				t.Errorf("somebody else's metadata is an error: %v", err)
			}
			return
		}
		if err := c.release().Check(); err != nil {
			t.Fatal(err)
		}
		if len(c.Advisories) > maxAdvisories || c.Rollout != nil && (c.Rollout.BasisPoints < 0 || c.Rollout.BasisPoints > Positions) {
			t.Fatalf("%+v", c)
		}
		again, err := c.encode()
		if err != nil {
			t.Fatal(err)
		}
		back, found, err := parseCustom(*again)
		if err != nil || !found {
			t.Fatalf("written again: %s: %v", *again, err)
		}
		x, _ := json.Marshal(c)
		y, _ := json.Marshal(back)
		if string(x) != string(y) {
			t.Fatalf("%s became %s", x, y)
		}
		target, _, err := targetOf(path, &metadata.TargetFiles{Length: 1, Hashes: metadata.Hashes{"sha256": make([]byte, 32)}, Custom: again})
		if err != nil {
			return
		}
		if strings.Contains("/"+path+"/", "/../") || strings.HasPrefix(path, "/") || strings.ContainsAny(path, "\\%?#\x00 ") {
			t.Fatalf("the path %q was accepted", path)
		}
		if target.Rollout.limit() < 0 || target.Rollout.limit() > Positions {
			t.Fatalf("%+v", target.Rollout)
		}
	})
}

// FuzzMetadata gives go-tuf what a server may send, and nothing gets through or
// ends the process.
func FuzzMetadata(f *testing.F) {
	for _, seed := range []string{
		"", "{}", "null", "[", `{"signed":{"_type":"timestamp"},"signatures":[]}`, `{"signed":{"_type":"timestamp","meta":{"snapshot.json":null}},"signatures":[]}`,
		`{"signed":{"_type":"root","keys":{"a":null},"roles":{"root":null}},"signatures":[{"keyid":"a","sig":"00"}]}`,
		`{"signed":{"_type":"root","version":1,"keys":{"a":{"keytype":"ed25519","scheme":"ed25519","keyval":{"public":"00"}}},"roles":{"root":{"keyids":["a"],"threshold":1}}},"signatures":[{"keyid":"a","sig":"00"}]}`,
		`{"signed":{"_type":"targets","targets":{"x":null}},"signatures":null}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if guarded(func() error { _, err := trustedmetadata.New(data); return err }) == nil {
			// A root that signs itself is the pinned one; no fuzzer makes that.
			t.Skip()
		}
		set := &trustedmetadata.TrustedMetadata{Root: metadata.Root(time.Now()), Targets: map[string]*metadata.Metadata[metadata.TargetsType]{}}
		for role, step := range map[string]func() error{
			metadata.ROOT:      func() error { _, err := set.UpdateRoot(data); return err },
			metadata.TIMESTAMP: func() error { _, err := set.UpdateTimestamp(data); return err },
		} {
			if verdict(role, guarded(step)) == nil {
				t.Fatalf("%s was accepted: %s", role, data)
			}
		}
	})
}
