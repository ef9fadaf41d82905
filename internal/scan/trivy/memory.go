//go:build goexperiment.jsonv2

package trivy

import (
	"github.com/aquasecurity/trivy/pkg/fanal/analyzer"
	"github.com/aquasecurity/trivy/pkg/types"

	"github.com/mobileops/mobileops/internal/scan/memo"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/mobileops/mobileops/internal/scan/trivy/license"
	"github.com/mobileops/mobileops/internal/scan/trivy/secret"
)

// memory has the analyzers of ours that take the place of Trivy's, and the memo in
// which they remember results by content.
type memory struct {
	found    *problems
	memo     *memo.Memo
	secrets  *secret.SecretAnalyzer
	licenses *license.LicenseAnalyzer
	ours     map[analyzer.Type]fileAnalyzer
	layers   *layerMemory // nil: nothing is remembered of layers
}

// part returns what a layer is looked at with: analyzers that do the same, and count
// for themselves.
func (m *memory) part() *memory {
	part := &memory{ours: map[analyzer.Type]fileAnalyzer{}}
	if m.secrets != nil {
		part.secrets = m.secrets.Part()
		part.ours[analyzer.TypeSecret] = part.secrets
	}
	if m.licenses != nil {
		part.licenses = m.licenses.Part()
		part.ours[analyzer.TypeLicenseFile] = part.licenses
	}
	return part
}

// add counts what a part counted, and tells its problems.
func (m *memory) add(part *memory) {
	if m.secrets != nil {
		m.secrets.Add(part.secrets.Stats())
	}
	if m.licenses != nil {
		m.licenses.Add(part.licenses.Problems())
	}
}

func (j *job) openMemory() (*memory, error) {
	m := &memory{found: j.found, ours: map[analyzer.Type]fileAnalyzer{}}
	if j.req.Memo != "" && (j.wants.secrets || j.wants.licenses || j.req.Kind == protocol.Image) {
		var err error
		if m.memo, err = memo.Open(j.req.Memo, j.req.MemoLimit); err != nil {
			j.found.note("nothing is remembered from scan to scan: " + err.Error())
		}
	}
	if j.wants.secrets {
		a, err := secret.Analyzer(secret.Options{Config: j.req.SecretRules, Memo: m.memo})
		if err != nil {
			m.close()
			return nil, err
		}
		m.secrets, m.ours[analyzer.TypeSecret] = a, a
	}
	if j.wants.licenses {
		m.licenses = license.Analyzer(license.Options{Memo: m.memo, Confidence: licenseConfidence})
		m.ours[analyzer.TypeLicenseFile] = m.licenses
	}
	return m, nil
}

// close writes what is new into the memo. That it couldn't be written is no reason
// to lose a report.
func (m *memory) close() {
	if m.memo == nil {
		return
	}
	if note := m.memo.Stats().Note; note != "" {
		m.found.note(note)
	}
	if err := m.memo.Close(); err != nil {
		m.found.note("what was found is not remembered for the next scan: " + err.Error())
	}
	m.memo = nil
}

// count adds to a report what our analyzers know beside Trivy's results.
func (m *memory) count(results types.Results, r *protocol.Report) error {
	if m.layers != nil {
		r.Stats.Remembered += m.layers.files.Load()
	}
	if m.secrets != nil {
		s := m.secrets.Stats()
		r.Skipped.Binary += s.Binary
		r.Skipped.Small += s.Small
		r.Skipped.Pattern += s.Pattern
		r.Stats.Remembered += s.Remembered
	}
	if m.licenses != nil {
		r.Stats.Remembered += m.licenses.Stats().Remembered
		for _, p := range m.licenses.Problems() {
			m.found.add(p.Kind, p.Path, p.Detail)
		}
		return m.licenses.Collect(results, r)
	}
	return nil
}
