//go:build goexperiment.jsonv2

package trivy

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/bucket"
	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"
)

// TestBucketsOfSystems: a database that has nothing of a system must be noticed, so
// each family is looked for by the name of its bucket.
func TestBucketsOfSystems(t *testing.T) {
	for _, tc := range []struct {
		family  ftypes.OSType
		version string
		bucket  bucket.Bucket
	}{
		{ftypes.Debian, "12.5", bucket.NewDebian("12")},
		{ftypes.Ubuntu, "24.04", bucket.NewUbuntu("24.04")},
		{ftypes.Alpine, "3.20.1", bucket.NewAlpine("3.20")},
		{ftypes.Rocky, "9.4", bucket.NewRocky("9")},
		{ftypes.Alma, "9.4", bucket.NewAlma("9")},
		{ftypes.Oracle, "8.9", bucket.NewOracle("8")},
		{ftypes.RedHat, "9.4", bucket.NewRedHat("")},
		{ftypes.CentOS, "7", bucket.NewRedHat("")},
		{ftypes.Amazon, "2 (Karoo)", bucket.NewAmazon("2")},
		{ftypes.Amazon, "2023.6.20241212", bucket.NewAmazon("2023")},
		{ftypes.Amazon, "AMI release 2018.03", bucket.NewAmazon("1")},
		{ftypes.Azure, "3.0.20240727", bucket.NewAzureLinux("3.0")},
		{ftypes.CBLMariner, "2.0.20240101", bucket.NewMariner("2.0")},
		{ftypes.SLES, "15.6", bucket.NewSUSELinuxEnterprise("15.6")},
		{ftypes.SLEMicro, "5.5", bucket.NewSUSELinuxEnterpriseMicro("5.5")},
		{ftypes.Photon, "4.0", bucket.NewPhoton("4.0")},
		{ftypes.OpenSUSELeap, "15.6", bucket.NewOpenSUSE("15.6")},
		{ftypes.OpenSUSETumbleweed, "20260101", bucket.NewOpenSUSETumbleweed()},
		{ftypes.Bottlerocket, "1.20", bucket.NewBottlerocket()},
		{ftypes.Wolfi, "20230201", bucket.NewWolfi("")},
		{ftypes.Chainguard, "20230214", bucket.NewChainguard("")},
		{ftypes.Echo, "1", bucket.NewEcho("")},
		{ftypes.MinimOS, "1", bucket.NewMinimOS("")},
	} {
		if got := bucketOf(string(tc.family), tc.version); got != tc.bucket.Name() {
			t.Errorf("%s %s is looked for as %q, and is %q", tc.family, tc.version, got, tc.bucket.Name())
		}
	}
}

// TestMessagesHaveNoLinesOfFiles: Trivy logs the source of what it cannot parse.
func TestMessagesHaveNoLinesOfFiles(t *testing.T) {
	found := newProblems()
	log := slog.New(&listener{found: found})
	log.Error("Error parsing file", slog.String("file_path", "main.tf"), slog.String("cause", `password = "hunter2`), slog.String("name", "x"))
	var text strings.Builder
	for _, p := range found.list {
		text.WriteString(p.Detail + "\n")
	}
	if s := text.String(); strings.Contains(s, "hunter2") || !strings.Contains(s, "name x") {
		t.Errorf("%q", s)
	}
}
