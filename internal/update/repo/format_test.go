package repo

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestDocumentedFormat keeps docs/formats/repository.md in step: its example is
// read, its codes are those that there are, with their statuses, and its limits
// hold.
func TestDocumentedFormat(t *testing.T) {
	data, err := os.ReadFile("../../../docs/formats/repository.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	m := regexp.MustCompile("(?s)```json\n(\\{\"mobileops\".*?)```").FindStringSubmatch(page)
	if m == nil {
		t.Fatal("there is no example of custom metadata")
	}
	c, found, err := parseCustom([]byte(m[1]))
	want := custom{
		Name: "platform", Version: "2.4.1", Sequence: 17, Channel: "stable", Expires: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), Severity: "critical",
		Published: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), Advisories: []string{"CVE-2026-1234"}, Rollout: &customRollout{1000, "platform-2.4.1"},
	}
	if err != nil || !found || fmt.Sprint(c.Rollout.Salt, c.Rollout.BasisPoints, c.release(), c.Severity, c.Published, c.Advisories) !=
		fmt.Sprint(want.Rollout.Salt, want.Rollout.BasisPoints, want.release(), want.Severity, want.Published, want.Advisories) {
		t.Errorf("%+v, %v", c, err)
	}
	documented := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| (`[a-z`, -]+`) \\| ([0-9]) \\|").FindAllStringSubmatch(page, -1) {
		for _, code := range regexp.MustCompile("[a-z-]+").FindAllString(row[1], -1) {
			documented[code] = row[2]
		}
	}
	codes := []Code{CodeRollback, CodeExpired, CodeMix, CodeSignature, CodeThreshold, CodeHash, CodeLength, CodeTooLarge, CodeMalformed, CodeRedirect,
		CodeRoot, CodeRecord, CodeUnreachable, CodeStalled, CodeMissing, CodeNotFound, CodeDisk, CodeNever}
	for _, code := range codes {
		if documented[string(code)] != fmt.Sprint(code.kind().Status()) {
			t.Errorf("%q has the status %d, and is documented with %q", code, code.kind().Status(), documented[string(code)])
		}
		delete(documented, string(code))
	}
	if len(documented) > 0 {
		t.Errorf("codes that do not exist are documented: %v", documented)
	}
	l := DefaultLimits()
	for _, text := range []string{
		fmt.Sprintf("%d KiB of root, %d KiB of timestamp, %d MiB of snapshot, %d MiB of targets", l.Root>>10, l.Timestamp>>10, l.Snapshot>>20, l.Targets>>20),
		fmt.Sprintf("more than %d roots", l.Rotations), fmt.Sprintf("%d KiB of a package came within %.0f seconds", l.StallBytes>>10, l.Stall.Seconds()),
		fmt.Sprintf("up to %d words of at most %d printable", maxAdvisories, maxWord), fmt.Sprintf("At most %d KiB", maxCustom>>10), fmt.Sprintf("1 to %d characters of", maxPath),
		bucket, recordSchema,
	} {
		if !strings.Contains(page, text) {
			t.Errorf("it does not say %q", text)
		}
	}
	for role, life := range DefaultLifetimes() {
		if !regexp.MustCompile(fmt.Sprintf(`(?m)^\| %s \|.*\| %.0f days \|$`, role, life.Hours()/24)).MatchString(page) {
			t.Errorf("%s is good for %v", role, life)
		}
	}
}
