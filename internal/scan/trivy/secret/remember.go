//go:build goexperiment.jsonv2

package secret

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/aquasecurity/trivy/pkg/fanal/analyzer"
	"github.com/aquasecurity/trivy/pkg/fanal/secret"
	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"
	"github.com/zeebo/blake3"

	"github.com/mobileops/mobileops/internal/scan/memo"
)

// memory is a memo as it is used for secrets. Its methods may be called on nil, which
// remembers nothing.
//
// What came of a file is remembered in two ways. By what the kernel says of the file
// (memo.Identity), which takes no reading at all. And by content, BLAKE3 of it, where
// there is no identity: in layers of images, and on filesystems that cannot vouch for
// their files. Hashing takes a quarter of the time of searching, so where there is an
// identity this is done only when there are rules that must be run on everything.
//
// The results depend on the path as well, where rules have expressions for it.
// Which of them apply is part of the key. The path itself is not, so that a renamed
// file, or one of several names, is known.
type memory struct {
	memo    *memo.Memo
	ruleset [32]byte
}

// generation is part of every key: it changes with the program's idea of a finding.
const generation = "mobileops secret 1 trivy 0.72.0"

// newMemory takes the digest of all that results depend on.
func newMemory(m *memo.Memo, global *secret.Global) *memory {
	h := blake3.New()
	put := func(values ...any) {
		for _, v := range values {
			_, _ = fmt.Fprintf(h, "%q ", fmt.Sprint(v))
		}
		_, _ = h.WriteString("\n")
	}
	expression := func(r *secret.Regexp) string {
		if r == nil || r.Regexp == nil {
			return ""
		}
		return r.String()
	}
	allow := func(rules secret.AllowRules) {
		for _, r := range rules {
			put("allow", r.ID, expression(r.Regex), expression(r.Path))
		}
	}
	exclude := func(b secret.ExcludeBlock) {
		for _, r := range b.Regexes {
			put("exclude", expression(r))
		}
	}
	put(generation)
	allow(global.AllowRules)
	exclude(global.ExcludeBlock)
	for _, r := range global.Rules {
		put("rule", r.ID, r.Category, r.Title, r.Severity, expression(r.Regex), expression(r.Path), r.SecretGroupName, len(r.Keywords))
		for _, k := range r.Keywords {
			put(k)
		}
		allow(r.AllowRules)
		exclude(r.ExcludeBlock)
	}
	return &memory{memo: m, ruleset: [32]byte(h.Sum(nil))}
}

// rules is the digest of the rules, for one profile of paths and one way of
// remembering.
func (m *memory) rules(way, profile string) [32]byte {
	return blake3.Sum256(fmt.Appendf(nil, "%s %s %x", way, profile, m.ruleset))
}

// file returns what came of a file that is the same since.
func (m *memory) file(info os.FileInfo, profile string) (outcome, bool) {
	if m == nil {
		return outcome{}, false
	}
	id, ok := memo.Identify(info)
	if !ok {
		return outcome{}, false
	}
	return m.get(memo.Key{Content: id.Digest(), Ruleset: m.rules("file", profile)})
}

// put remembers what came of a file that was read since started.
func (m *memory) put(input analyzer.AnalysisInput, started time.Time, profile string, o outcome) {
	if m == nil {
		return
	}
	f, ok := input.Content.(interface{ Stat() (fs.FileInfo, error) })
	if !ok {
		return
	}
	info, err := f.Stat()
	if err != nil {
		return
	}
	before, ok := memo.Identify(input.Info)
	after, still := memo.Identify(info)
	if !ok || !still || before != after || !before.SettledBefore(started) {
		return
	}
	m.keep(memo.Key{Content: before.Digest(), Ruleset: m.rules("file", profile)}, o)
}

func (m *memory) contentKey(content []byte, profile string) memo.Key {
	return memo.Key{Content: blake3.Sum256(content), Ruleset: m.rules("content", profile)}
}

func (m *memory) get(k memo.Key) (outcome, bool) {
	b, ok := m.memo.Get(k)
	if !ok {
		return outcome{}, false
	}
	if len(b) == 0 {
		return outcome{kind: nothing}, true
	}
	o := outcome{kind: outcomeKind(b[0])}
	switch o.kind {
	case binaryFile:
		return o, len(b) == 1
	case findings, binaryFindings:
		err := json.Unmarshal(b[1:], &o.findings)
		return o, err == nil && len(o.findings) > 0
	}
	return outcome{}, false
}

// keep remembers an outcome: nothing is the empty result, others begin with their
// kind. Findings are what the report shows, in which asterisks stand for the secret.
// Of a binary file that is only the rule.
func (m *memory) keep(k memo.Key, o outcome) {
	switch o.kind {
	case nothing:
		m.memo.Put(k, nil)
	case binaryFile:
		m.memo.Put(k, []byte{byte(binaryFile)})
	default:
		list := o.findings
		if o.kind == binaryFindings {
			list = append([]ftypes.SecretFinding(nil), list...)
			for i := range list {
				list[i].Match, list[i].Code = "", ftypes.Code{}
			}
		}
		b, err := json.Marshal(list)
		if err == nil {
			m.memo.Put(k, append([]byte{byte(o.kind)}, b...))
		}
	}
}
