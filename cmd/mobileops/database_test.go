package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/mobileops/mobileops/internal/scan/vulndb/vulndbtest"
	"github.com/rogpeppe/go-internal/testscript"
)

// cmdDatabase makes db.tar.gz as Trivy publishes it: database FILE HOURS [COUNT],
// built HOURS ago, with COUNT advisories, which are 3 otherwise.
func cmdDatabase(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: database FILE HOURS [COUNT]")
	}
	hours, err := strconv.Atoi(args[1])
	ts.Check(err)
	list := vulndbtest.Sample()
	if len(args) == 3 {
		n, err := strconv.Atoi(args[2])
		ts.Check(err)
		for i := len(list); i < n; i++ {
			list = append(list, vulndbtest.Advisory{Bucket: "debian 12", Package: fmt.Sprintf("package%d", i), ID: fmt.Sprintf("CVE-2025-%04d", i), Fixed: "1.0-1", Severity: "LOW"})
		}
	}
	data := vulndbtest.Archive(fataler{ts}, time.Now().Add(-time.Duration(hours)*time.Hour), list...)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o644))
}

// fataler ends a script as a test is ended.
type fataler struct{ ts *testscript.TestScript }

func (f fataler) Helper() {}

func (f fataler) Fatal(args ...any) { f.ts.Fatalf("%s", fmt.Sprint(args...)) }
