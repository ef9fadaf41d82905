//go:build goexperiment.jsonv2

package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/aquasecurity/trivy-db/pkg/types"
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/alma"
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/alpine"
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/amazon"
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/azure"
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/bitnami"
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/bottlerocket"
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/bundler"
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/chainguard"
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/composer"
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/debian"
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/echo"
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/glad"
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/govulndb"
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/julia"
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/k8svulndb"
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/minimos"
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/node"
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/nvd"
	oracleoval "github.com/aquasecurity/trivy-db/pkg/vulnsrc/oracle-oval"
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/photon"
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/redhat"
	redhatoval "github.com/aquasecurity/trivy-db/pkg/vulnsrc/redhat-oval"
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/rocky"
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/rootio"
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/seal"
	susecvrf "github.com/aquasecurity/trivy-db/pkg/vulnsrc/suse-cvrf"
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/ubuntu"
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/wolfi"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/mobileops/mobileops/internal/scan/vulndb/source"
)

// maxListDocument bounds a document of a vuln-list, in bytes: Red Hat's OVAL has
// some of 100 MB.
const maxListDocument = 512 << 20

// updater is one of Trivy's own readers.
type updater interface {
	Name() types.SourceID
	Update(dir string) error
}

// part is a directory of a cache of vuln-lists, and what reads it.
type part struct {
	dir string
	src updater
}

// parts are all that Trivy's own builder reads, but for GitHub's advisories,
// whose documents are OSV (github), and one that no longer exists.
func parts() []part {
	list := func(dir string) string { return filepath.Join("vuln-list", dir) }
	return []part{
		{"vuln-list-nvd/api", nvd.NewVulnSrc()},
		{list("alma"), alma.NewVulnSrc()},
		{list("alpine"), alpine.NewVulnSrc()},
		{"vuln-list-redhat/api", redhat.NewVulnSrc()},
		{"vuln-list-redhat/oval", redhatoval.NewVulnSrc()},
		{"vuln-list-debian/tracker", debian.NewVulnSrc()},
		{list("ubuntu"), ubuntu.NewVulnSrc()},
		{list("amazon"), amazon.NewVulnSrc()},
		{list("oval/oracle"), oracleoval.NewVulnSrc()},
		{list("rocky"), rocky.NewVulnSrc()},
		{list("cvrf/suse/suse"), susecvrf.NewVulnSrc(susecvrf.SUSEEnterpriseLinux)},
		{list("cvrf/suse/opensuse"), susecvrf.NewVulnSrc(susecvrf.OpenSUSE)},
		{list("photon"), photon.NewVulnSrc()},
		{list("azure"), azure.NewVulnSrc(azure.Azure)},
		{list("mariner"), azure.NewVulnSrc(azure.Mariner)},
		{list("wolfi"), wolfi.NewVulnSrc()},
		{list("chainguard"), chainguard.NewVulnSrc()},
		{"bitnami-vulndb/data", bitnami.NewVulnSrc()},
		{list("echo"), echo.NewVulnSrc()},
		{list("minimos"), minimos.NewVulnSrc()},
		{list("bottlerocket"), bottlerocket.NewVulnSrc()},
		{list("rootio"), rootio.NewVulnSrc()},
		{list("seal"), seal.NewVulnSrc()},
		{"k8s-cve-feed/vulns", k8svulndb.NewVulnSrc()},
		{"ruby-advisory-db/gems", bundler.NewVulnSrc()},
		{"php-security-advisories", composer.NewVulnSrc()},
		{"nodejs-security-wg/vuln", node.NewVulnSrc()},
		{list("glad"), glad.NewVulnSrc()},
		{"govulndb/data/osv", govulndb.NewVulnSrc()},
		{"julia", julia.NewVulnSrc()},
	}
}

// github is where GitHub's advisories lie in a cache of vuln-lists.
const github = "ghsa/advisories/github-reviewed"

// vulnList puts a cache of vuln-lists into the tables, or one list alone. Trivy's
// readers end at the first document that they cannot parse; so every document is
// parsed before, and those that are no JSON are kept from them and reported.
func (b *builder) vulnList(src protocol.Source) error {
	top, err := b.cache(src.Path)
	if err != nil {
		return err
	}
	sum := &source.Summary{Skipped: map[string]int{}}
	found := false
	for _, p := range parts() {
		if err := context.Cause(b.ctx); err != nil {
			return err
		}
		if st, err := os.Stat(filepath.Join(top, p.dir)); err != nil || !st.IsDir() {
			continue
		}
		found = true
		dir, err := b.sound(top, p.dir, sum)
		if err != nil {
			return err
		}
		b.tell("build", int64(sum.Documents), string(p.src.Name()))
		if err := update(p.src, dir); err != nil {
			return failure.Wrap(failure.Untrustworthy, fmt.Errorf("%s: %s: %w", src.Path, p.dir, err))
		}
	}
	b.take(sum)
	if found {
		b.report.Sources = append(b.report.Sources, protocol.SourceReport{Source: src, Documents: sum.Documents, Newest: sum.Newest})
	}
	if st, err := os.Stat(filepath.Join(top, github)); err == nil && st.IsDir() {
		return b.source(protocol.Source{Format: protocol.OSV, Path: filepath.Join(top, github)})
	}
	if !found {
		return failure.Hint(failure.Errorf(failure.NotReady, "there is no list of vulnerabilities in %s", src.Path), "name the directory that has vuln-list, vuln-list-debian and the others in it, or one of them")
	}
	return nil
}

// update runs one of Trivy's readers, which may panic over what it reads.
func update(src updater, dir string) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the reader of %s gave up: %v", src.Name(), r)
		}
	}()
	return src.Update(dir)
}

// cache returns a directory in which lists have the names that Trivy's readers
// look for. path may be that, or one of the lists.
func (b *builder) cache(path string) (string, error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", failure.Wrap(failure.NotReady, err)
	}
	if err != nil {
		return "", err
	}
	if !st.IsDir() {
		return "", failure.Errorf(failure.Usage, "%s is not a directory", path)
	}
	has := func(names ...string) bool {
		for _, name := range names {
			if st, err := os.Stat(filepath.Join(path, name)); err == nil && st.IsDir() {
				return true
			}
		}
		return false
	}
	name := ""
	switch {
	case has("tracker"):
		name = "vuln-list-debian"
	case has("alpine", "ubuntu", "amazon", "rocky", "alma", "cvrf", "wolfi", "glad"):
		name = "vuln-list"
	case has("vuln/npm"):
		name = "nodejs-security-wg"
	default:
		return path, nil
	}
	whole, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	top, err := os.MkdirTemp(b.work, "lists-*")
	if err != nil {
		return "", err
	}
	return top, os.Symlink(whole, filepath.Join(top, name))
}

// sound parses every JSON document of a part. When all are JSON it returns top;
// otherwise a directory in which the part has links to those that are.
func (b *builder) sound(top, part string, sum *source.Summary) (string, error) {
	root, err := filepath.EvalSymlinks(filepath.Join(top, part))
	if err != nil {
		return "", err
	}
	var good, bad []string
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if cerr := context.Cause(b.ctx); cerr != nil {
			return cerr
		}
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == ".git" {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() {
			bad = append(bad, path)
			sum.Skipped["not a file"]++
			return nil
		}
		if info, err := d.Info(); err == nil && info.ModTime().After(sum.Newest) && info.ModTime().Before(time.Now().Add(24*time.Hour)) {
			sum.Newest = info.ModTime().UTC()
		}
		if filepath.Ext(path) == ".json" {
			if err := wellFormed(path); err != nil {
				rel, _ := filepath.Rel(root, path)
				sum.Skipped[string(protocol.Malformed)]++
				sum.Problems = append(sum.Problems, protocol.Problem{Kind: protocol.Malformed, Path: filepath.Join(part, rel), Detail: err.Error()})
				bad = append(bad, path)
				return nil
			}
			sum.Documents++
		}
		good = append(good, path)
		return nil
	})
	if err != nil || len(bad) == 0 {
		return top, err
	}
	clean, err := os.MkdirTemp(b.work, "sound-*")
	if err != nil {
		return "", err
	}
	for _, path := range good {
		to := filepath.Join(clean, part, strings.TrimPrefix(path, root))
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return "", err
		}
		if err := os.Symlink(path, to); err != nil {
			return "", err
		}
	}
	return clean, nil
}

// wellFormed says what is wrong with a JSON document.
func wellFormed(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxListDocument+1))
	if err != nil {
		return err
	}
	if len(data) > maxListDocument {
		return fmt.Errorf("it has more than %d bytes", maxListDocument)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	var v json.RawMessage
	if err := dec.Decode(&v); err != nil {
		at := dec.InputOffset()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			at = int64(len(data))
		}
		return &source.MalformedError{Offset: at, Reason: err.Error()}
	}
	return nil
}
